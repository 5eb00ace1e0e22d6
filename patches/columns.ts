/** Factors [rows, rank] are row-major, so putting them side by side and cutting ranks out again moves values. */

/** Matrices [rows, rank] next to each other: [rows, Σ rank]. */
export function sideBySide(parts: readonly { values: Float32Array; rank: number }[]): Float32Array {
  const rows = parts[0].values.length / parts[0].rank;
  const total = parts.reduce((sum, { rank }) => sum + rank, 0);
  const out = new Float32Array(rows * total);
  let column = 0;
  for (const { values, rank } of parts) {
    for (let row = 0; row < rows; row++) {
      out.set(values.subarray(row * rank, (row + 1) * rank), row * total + column);
    }
    column += rank;
  }
  return out;
}

/** Some columns of a matrix [rows, rank]: [rows, columns]. */
export function pickColumns(values: Float32Array, rank: number, columns: readonly number[]): Float32Array {
  const rows = values.length / rank;
  const out = new Float32Array(rows * columns.length);
  for (let row = 0; row < rows; row++) {
    columns.forEach((column, i) => out[row * columns.length + i] = values[row * rank + column]);
  }
  return out;
}

/** [rows, cols] → [cols, rows] */
export function transposed(values: Float32Array, rows: number, cols: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = values[r * cols + c];
  return out;
}
