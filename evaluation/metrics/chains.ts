/**
 * Questions that make a test together, scored on greedy texts: RippleEdits and MQuAKE.
 *
 * RippleEdits (Cohen et al. 2024, "Evaluating the Ripple Effects of Knowledge Editing"; code:
 * edenbiran/RippleEdits, testrunner.py, queryexecutor.py): a test whose condition queries the unedited model
 * fails is not executed; a test passes if any or all of its queries do.
 *
 *   ripple.<criterion>           passed / executed tests, on cases whose edited fact is recalled
 *   ripple.executed.<criterion>  executed / all tests
 *   ripple.edited                1 if the edited fact is recalled: what share of edits the others speak of
 *
 * A query passes when each answer has an alias that is a substring of the text, case included; aliases of one
 * character count only if they are digits. Quirks decided otherwise: theirs looks into prompt and
 * continuation, up to as many *tokens* as the prompt has characters plus 30, so an answer that the prompt
 * already names passes; here the continuation up to its natural stop is what counts. Theirs gives 0 to an
 * example where no test was executed; here it has no value.
 *
 * MQuAKE (Zhong et al. 2023, "MQuAKE: Assessing Knowledge Editing in Language Models via Multi-Hop Questions"):
 *
 *   mquake.multihop  1 if any of the paraphrased multi-hop questions is answered with the new answer or an alias
 *   mquake.editwise  share of the case's edited facts that are recalled
 *   mquake.instance  1 if all facts of the case's chain are
 *
 * Answers there are normalised as for `gen.contains`. Quirk: theirs prompts with examples, with and without a
 * chain of thought; the case's prompts are asked as they are.
 */
import type { Metrics } from "../records.ts";
import { containsAnswers, naturalStop } from "./generation.ts";
import { type Asked, groupBy, mean } from "./probes.ts";

/** `ripple.*` and `mquake.*`, as the case's probes and texts allow. */
export function chainMetrics(asked: readonly Asked[], edited: boolean): Metrics {
  const chained = asked.some(({ probe }) => probe.kind === "multi-hop" || probe.kind === "single-hop");
  return chained ? mquake(asked) : ripple(asked, edited);
}

/** Whether a text holds for each answer an alias, by RippleEdits' rule. */
export function rippleMatch(text: string, answers: readonly (readonly string[])[]): boolean {
  const said = naturalStop(text);
  const counts = (alias: string) => [...alias].length > 1 || /^\p{Nd}$/u.test(alias);
  return answers.every((aliases) => aliases.some((alias) => counts(alias) && said.includes(alias)));
}

function ripple(asked: readonly Asked[], edited: boolean): Metrics {
  const tested = asked.filter(({ probe, after }) => probe.test && after.text !== undefined);
  if (!tested.length) return {};
  const facts = asked.filter(({ probe, after }) => probe.kind === "rewrite" && after.text !== undefined);
  const recalled = facts.every(({ probe, after }) => rippleMatch(after.text!, probe.answers));
  const out: Metrics = facts.length ? { "ripple.edited": +recalled } : {};
  for (const [criterion, members] of groupBy(tested, ({ probe }) => probe.group ?? probe.kind)) {
    const tests = [...groupBy(members, ({ probe }) => probe.test!.id).values()];
    const executed = tests.filter(([{ probe, before }]) =>
      probe.test!.conditions.every(({ answers }, i) => rippleMatch(before.conditions?.[i] ?? "", answers))
    );
    out[`ripple.executed.${criterion}`] = executed.length / tests.length;
    if (executed.length && (recalled || !edited)) {
      out[`ripple.${criterion}`] = mean(executed.map((test) => +passes(test, rippleMatch)));
    }
  }
  return out;
}

function passes(test: readonly Asked[], match: typeof rippleMatch): boolean {
  const results = test.map(({ probe, after }) => match(after.text!, probe.answers));
  return test[0].probe.test?.combine === "all" ? results.every(Boolean) : results.some(Boolean);
}

function mquake(asked: readonly Asked[]): Metrics {
  const of = (kind: string) => asked.filter((a) => a.probe.kind === kind && a.after.text !== undefined);
  const right = (a: Asked) => +containsAnswers(a.after.text!, a.probe.answers);
  const hops = of("multi-hop"), facts = of("rewrite"), links = of("single-hop");
  const tests = [...groupBy(hops, ({ probe }) => probe.test?.id ?? "").values()];
  return {
    ...(tests.length && { "mquake.multihop": mean(tests.map((test) => +passes(test, containsAnswers))) }),
    ...(facts.length && { "mquake.editwise": mean(facts.map(right)) }),
    ...(links.length && { "mquake.instance": +links.every(right) }),
  };
}
