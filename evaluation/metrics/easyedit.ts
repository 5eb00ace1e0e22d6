/**
 * EasyEdit's four numbers (Wang et al. 2024; Zhang et al. 2024, "KnowEdit"; code: zjunlp/EasyEdit,
 * evaluate_utils.test_prediction_acc, editor.finalize_locality_metrics, examples/run_knowedit_llama2.eval).
 *
 *   reliability, generality  share of target tokens that are the likeliest, at the edit prompt / rephrasings
 *   portability              the same at prompts whose answers follow from the edit
 *   locality                 share of answer positions at which the likeliest token is the same before and after
 *
 * Of a record with several sub-types (`<group>`), the mean inside each and then the mean over those present;
 * a record without any is left out. Quirks: partial credit, "Joe Biden" is half right for "Trump Biden";
 * locality never asks whether the answer is right, so a model that says one word always would score 1; the
 * package's printed summary averages each sub-type over records instead, which gives another number.
 */
import type { ProbeKind } from "../cases.ts";
import type { Metrics } from "../records.ts";
import {
  agreement,
  type Answered,
  answered,
  type Asked,
  groupBy,
  mean,
  overall,
  tokenShare,
} from "./probes.ts";

/** Kinds of probes whose answers follow from the edit: KnowEdit's three portability keys. */
export const PORTABLE: ReadonlySet<ProbeKind> = new Set(["alias", "reasoning", "logic"]);

/** Whether a probe asks for something that should not have changed. */
export function isLocality({ probe }: Asked): boolean {
  return probe.expect === "unchanged";
}

/** `easyedit.*`: what the case's probes allow; locality needs readings of both states. */
export function easyeditMetrics(asked: readonly Asked[]): Metrics {
  const list = answered(asked);
  const share = ({ answer }: Answered) => tokenShare(answer);
  const local = list.filter((a) =>
    isLocality(a) && a.before.answer?.argmax.length === a.answer.argmax.length
  );
  const portable = list.filter((a) => !isLocality(a) && PORTABLE.has(a.probe.kind));
  return {
    ...overall("easyedit.reliability", list.filter(({ probe }) => probe.kind === "rewrite"), share),
    ...overall("easyedit.generality", list.filter(({ probe }) => probe.kind === "paraphrase"), share),
    ...bySubType("easyedit.locality", local, ({ before, answer }) => agreement(before.answer!, answer)),
    ...bySubType("easyedit.portability", portable, share),
  };
}

/** `name.<group>` for each sub-type, and `name`: the mean of these. A probe without a group goes by its kind. */
function bySubType(name: string, list: readonly Answered[], score: (a: Answered) => number): Metrics {
  const groups = [...groupBy(list, ({ probe }) => probe.group ?? probe.kind)]
    .map(([group, members]): [string, number] => [`${name}.${group}`, mean(members.map(score))]);
  if (!groups.length) return {};
  return { [name]: mean(groups.map(([, value]) => value)), ...Object.fromEntries(groups) };
}
