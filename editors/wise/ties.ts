/**
 * TIES merging (Yadav et al. 2023), as WISE puts its shards together: of each change the largest elements are kept,
 * the sign of each element is elected by their weighted sum, and those that agree with it are averaged.
 */

/** The largest `density` of x by magnitude, others 0; the first among equals. */
export function keepLargest(x: Float32Array, density: number): Float32Array {
  if (density >= 1) return x;
  const count = Math.floor(density * x.length);
  const sorted = x.map(Math.abs).sort();
  const least = sorted[x.length - count];
  let equal = count - (x.length - sorted.findIndex((v) => v > least));
  if (sorted.at(-1) === least) equal = count;
  return x.map((v) => {
    const size = Math.abs(v);
    return size > least || (size === least && equal-- > 0) ? v : 0;
  });
}

/**
 * Merges changes of one matrix.
 * @param weights one each; an element becomes Σ w·δ/Σ w over those whose sign is the elected one
 */
export function ties(
  deltas: readonly Float32Array[],
  weights: readonly number[],
  density: number,
): Float32Array {
  const kept = deltas.map((delta) => keepLargest(delta, density));
  return kept[0].map((_, i) => {
    const vote = kept.reduce((sum, delta, j) => sum + weights[j] * delta[i], 0);
    const elected = vote >= 0 ? 1 : -1;
    let sum = 0, share = 0;
    kept.forEach((delta, j) => {
      if (Math.sign(delta[i]) !== elected) return;
      sum += weights[j] * delta[i];
      share += weights[j];
    });
    return sum / (share || 1);
  });
}
