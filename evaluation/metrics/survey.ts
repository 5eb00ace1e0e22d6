/**
 * The four properties as the survey writes them (Yao et al. 2023, "Editing Large Language Models: Problems,
 * Methods, and Opportunities", section 2): indicators on whole answers, averaged over prompts.
 *
 *   reliability, generality, portability  1{argmax_y f'(y | x) = answer}
 *   locality                              1{f'(y | x) = f(y | x)}
 *
 * The survey's own tables were made with EasyEdit's token shares, not with these formulas. Quirks: argmax over
 * y is greedy decoding to the answer's length (see `sequenceMatch`); locality compares the likeliest tokens at
 * the places of the dataset's answer, under teacher forcing, instead of two free texts.
 */
import type { ProbeKind } from "../cases.ts";
import type { Metrics } from "../records.ts";
import { isLocality, PORTABLE } from "./easyedit.ts";
import { agreement, answered, type Asked, overall, sequenceMatch } from "./probes.ts";

/** `survey.*`: means over all probes of a property, without sub-types. */
export function surveyMetrics(asked: readonly Asked[]): Metrics {
  const list = answered(asked);
  const right = (name: string, wanted: (kind: ProbeKind) => boolean) =>
    overall(
      `survey.${name}`,
      list.filter((a) => !isLocality(a) && wanted(a.probe.kind)),
      ({ answer }) => sequenceMatch(answer),
    );
  const local = list.filter((a) =>
    isLocality(a) && a.before.answer?.argmax.length === a.answer.argmax.length
  );
  return {
    ...right("reliability", (kind) => kind === "rewrite"),
    ...right("generality", (kind) => kind === "paraphrase"),
    ...overall("survey.locality", local, ({ before, answer }) => +(agreement(before.answer!, answer) === 1)),
    ...right("portability", (kind) => PORTABLE.has(kind)),
  };
}
