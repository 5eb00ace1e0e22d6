/**
 * zsRE as two traditions score it, on records that have a question about something else (`unrelated`).
 *
 *   zsre.efficacy, .paraphrase, .specificity  share of right tokens over all prompts of that sort, against the
 *       dataset's answer (Meng et al. 2022, section 3.2; kmeng01/rome, eval_utils_zsre.py)
 *   mend.edit_success  share of the edit prompt and its rephrasings whose answer is right token by token
 *       (Mitchell et al. 2022, "Fast Model Editing at Scale", section 2; eric-mitchell/mend, losses.py)
 *   mend.drawdown      accuracy of whole answers to unrelated questions before, minus after
 *
 * Quirks: tokens of several prompts are pooled, so a long answer weighs more. The authors of ROME decode parts of the
 * target and tokenise them anew, and compare only the first token of each piece; with tokenizers that put a
 * begin-of-sequence token in front (LLaMA) that compares with this token and is always wrong. Here the
 * target's own ids are compared, which is the same wherever theirs works. ROME edits towards the right answer
 * of the dataset (`answers[0]`) and MEND towards a wrong one (`alt`); which one it was is the case's matter.
 */
import type { Metrics, Reading } from "../records.ts";
import { isLocality } from "./easyedit.ts";
import { type Answered, answered, type Asked, overall, sequenceMatch } from "./probes.ts";

/** `zsre.*` and `mend.*`; nothing for cases without an unrelated question. */
export function zsreMetrics(asked: readonly Asked[]): Metrics {
  const list = answered(asked);
  const of = (kind: string) => list.filter(({ probe }) => probe.kind === kind);
  const unrelated = of("unrelated");
  if (!unrelated.length) return {};
  const edited = [...of("rewrite"), ...of("paraphrase")];
  const local = unrelated.filter((a) => isLocality(a) && a.before.answer?.tokens.length);
  const right = (reading: Reading) => sequenceMatch(reading.answer!);
  return {
    ...pooled("zsre.efficacy", of("rewrite")),
    ...pooled("zsre.paraphrase", of("paraphrase")),
    ...pooled("zsre.specificity", unrelated),
    ...overall("mend.edit_success", edited, ({ after }) => right(after)),
    ...overall("mend.drawdown", local, ({ before, after }) => right(before) - right(after)),
  };
}

/** Share of right tokens over all answers together. */
function pooled(name: string, list: readonly Answered[]): Metrics {
  const tokens = list.flatMap(({ answer }) => answer.tokens.map((id, i) => +(id === answer.argmax[i])));
  return tokens.length ? { [name]: tokens.reduce((sum, hit) => sum + hit, 0) / tokens.length } : {};
}
