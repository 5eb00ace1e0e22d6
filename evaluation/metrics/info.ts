/** What the table of metrics holds of each, and how a name is looked up in it. */
import { METRICS } from "./table.ts";

/** A metric, or a family of them: `<kind>`, `<group>` and `<criterion>` stand for what the case's probes have. */
export interface MetricInfo {
  /** Its name in `Metrics`, or the pattern of its names. */
  name: string;
  /** For a table's head. */
  title: string;
  /** Of the value times `scale`. */
  unit: "%" | "bits×100" | "cosine×100" | "nats" | "bits" | "";
  /** What a stored value is multiplied by to be shown. */
  scale: number;
  better: "higher" | "lower" | "closer to before";
  formula: string;
  /** What a good value does not say. */
  misses: string;
  source: string;
  /** Published numbers of the same definition. */
  comparable: string;
}

/** Kinds of probes that should answer as before, where "accuracy" is not to be raised. */
const UNCHANGED = /^(tf|gen)\..*\.(neighbour|attribute|relation|forget|distract|unrelated)$/;

/**
 * What a metric name stands for: an entry of {@link METRICS} with its pattern filled in.
 * @returns `undefined` for a name that is no metric's
 */
export function metricInfo(name: string): MetricInfo | undefined {
  const exact = METRICS.find((info) => info.name === name);
  if (exact) return exact;
  for (const info of METRICS) {
    const slot = info.name.match(/<\w+>/)?.[0];
    if (slot === undefined) continue;
    const start = info.name.slice(0, -slot.length);
    // Kinds have no full stop, so that "rank.joint.x" is no kind of "rank".
    const filled = name.startsWith(start) ? name.slice(start.length) : "";
    if (!(slot === "<kind>" ? /^[a-z-]+$/ : /./).test(filled)) continue;
    const better = UNCHANGED.test(name) ? "closer to before" : info.better;
    return { ...info, name, title: info.title.replace(slot, () => filled), better };
  }
  return undefined;
}
