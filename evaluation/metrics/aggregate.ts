/** From cases to a run: every metric's mean over the cases that have it. */
import type { Metrics, Statistics } from "../records.ts";
import { mean } from "./probes.ts";

/**
 * Mean, standard deviation (n − 1; 0 for one case), half the 95 % interval of the mean (1.96·sd/√n) and count
 * of every metric, over the cases that have it: one without is left out, not counted as 0.
 */
export function aggregate(list: readonly Metrics[]): Statistics {
  const values = new Map<string, number[]>();
  for (const metrics of list) {
    for (const [name, value] of Object.entries(metrics)) {
      const found = values.get(name);
      if (found) found.push(value);
      else values.set(name, [value]);
    }
  }
  return Object.fromEntries([...values].map(([name, xs]) => [name, statistic(xs)]));
}

function statistic(xs: readonly number[]) {
  const n = xs.length, m = mean(xs);
  const sd = n > 1 ? Math.sqrt(xs.reduce((sum, x) => sum + (x - m) ** 2, 0) / (n - 1)) : 0;
  return { mean: m, sd, ci95: 1.96 * sd / Math.sqrt(n), n };
}
