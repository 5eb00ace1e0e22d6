/**
 * All metrics of one case: pure functions of its probes and of what the model said to them. What the probes and
 * readings do not allow is absent. `METRICS` says of every name what it means.
 */
import type { EditCase } from "../cases.ts";
import type { Metrics, Readings } from "../records.ts";
import { chainMetrics } from "./chains.ts";
import { easyeditMetrics } from "./easyedit.ts";
import { consistencyMetrics } from "./consistency.ts";
import { generationMetrics } from "./generation.ts";
import { matchingMetrics } from "./matching.ts";
import { ask } from "./probes.ts";
import { rankingMetrics } from "./ranking.ts";
import { surveyMetrics } from "./survey.ts";
import { textMetrics } from "./text.ts";
import { zsreMetrics } from "./zsre.ts";

export { aggregate } from "./aggregate.ts";
export { naturalStop } from "./generation.ts";
export { harmonicScore } from "./ranking.ts";
export { type MetricInfo, metricInfo } from "./info.ts";
export { METRICS } from "./table.ts";

/**
 * Scores what the model says after an edit. `scoreCase(case, before, before)` scores the unedited model.
 * @returns values by metric name, unscaled: shares in [0, 1], entropy in bits
 */
export function scoreCase(
  { probes, references }: Pick<EditCase, "requests" | "probes" | "references">,
  before: Readings,
  after: Readings,
): Metrics {
  const asked = ask(probes, before, after);
  return {
    ...rankingMetrics(asked),
    ...matchingMetrics(asked),
    ...generationMetrics(asked),
    ...easyeditMetrics(asked),
    ...surveyMetrics(asked),
    ...zsreMetrics(asked),
    ...chainMetrics(asked, before !== after),
    ...textMetrics(after.texts),
    ...consistencyMetrics(after.texts, references),
  };
}
