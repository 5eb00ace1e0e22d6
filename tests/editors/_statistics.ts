/** What the tests of statistics share: a small C, files of it, and a solver that is nobody else's. */
import type { LayerStatistics, StatisticsOrigin } from "../../editors/statistics.ts";
import { inFolder } from "../engine/io/_data.ts";
import { normals } from "../engine/ops/_reference.ts";

/** Statistics of seeded keys with a bent spectrum: C = mean of k kᵀ over 4·width keys. */
export function smallStatistics(width: number, change: Partial<StatisticsOrigin> = {}): LayerStatistics {
  const tokens = 4 * width;
  const keys = normals(tokens * width, 7);
  const lower: number[] = [];
  for (let i = 0; i < width; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let t = 0; t < tokens; t++) sum += keys[t * width + i] * keys[t * width + j];
      lower.push(sum / tokens / ((1 + i) * (1 + j)));
    }
  }
  const origin = {
    modelHash: "a".repeat(64),
    layer: 1,
    width,
    corpusHash: "c".repeat(64),
    corpusName: "text",
    tokens,
    documents: 9,
    maxLength: 512,
    complete: true,
    ...change,
  };
  return { origin, lower: Float32Array.from(lower) };
}

/** (C + ridge·tr(C)/F·I)⁻¹ k by Gauss-Jordan elimination in f64. */
export function solvePlainly({ origin, lower }: LayerStatistics, key: Float64Array, ridge: number) {
  const n = origin.width;
  const at = (i: number, j: number) => lower[i >= j ? i * (i + 1) / 2 + j : j * (j + 1) / 2 + i];
  let trace = 0;
  for (let i = 0; i < n; i++) trace += at(i, i);
  const rows = Array.from({ length: n }, (_, i) => [
    ...Array.from({ length: n }, (_, j) => at(i, j) + (i === j ? ridge * trace / n : 0)),
    key[i],
  ]);
  for (let p = 0; p < n; p++) {
    for (let i = 0; i < n; i++) {
      if (i === p) continue;
      const factor = rows[i][p] / rows[p][p];
      for (let j = p; j <= n; j++) rows[i][j] -= factor * rows[p][j];
    }
  }
  return Float64Array.from(rows, (row, i) => row[n] / row[i]);
}

/** Runs with an empty cache folder of its own. */
export async function inCache(run: (folder: string) => Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    const before = Deno.env.get("XDG_CACHE_HOME");
    Deno.env.set("XDG_CACHE_HOME", folder);
    try {
      await run(folder);
    } finally {
      if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
      else Deno.env.set("XDG_CACHE_HOME", before);
    }
  });
}
