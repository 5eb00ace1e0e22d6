/** What `emend edit` prints for people, made from the object that `--json` prints. */
import { fill } from "../editors/requests.ts";
import type { RequestState } from "../evaluation/state.ts";
import { firewallLines } from "./firewall.ts";
import { percent, seconds, table } from "./terminal.ts";

/** Changed tensors that get a line. */
const SHOWN = 12;

/**
 * Prints the report.
 * @param source where the hyper-parameters come from, a sentence
 */
// deno-lint-ignore no-explicit-any -- the JSON contract's object
export function printReport(result: any, source: string): void {
  const show = (state: RequestState) => `${JSON.stringify(state.top[0].token)} ${percent(state.top[0].p)}`;
  console.log(`${result.method} on ${result.model} (${result.adapter}). ${source}\n`);
  for (const e of result.edits) {
    console.log(`${fill(e.prompt, e.subject).text} …`);
    const rows = [
      ["", "before", "after"],
      ["says", show(e.before), show(e.after)],
      [`P(${e.target.trim()})`, percent(e.before.p_target), percent(e.after.p_target)],
    ];
    if (e.true) rows.push([`P(${e.true.trim()})`, percent(e.before.p_true), percent(e.after.p_true)]);
    rows.push(["continues", clip(e.before.generation), clip(e.after.generation)]);
    console.log(table(rows));
    const steps = e.loss === null ? "" : `: ${e.steps} steps, loss ${e.loss.toFixed(3)}`;
    console.log(took(e.success, result.firewall?.refused !== undefined) + steps);
    for (const warning of e.warnings) console.log(`warning: ${warning}`);
    console.log();
  }
  for (const g of result.generations) {
    console.log(`${g.prompt}\n  before:${clip(g.before, 90)}\n  after: ${clip(g.after, 90)}\n`);
  }
  if (result.firewall) console.log(`${firewallLines(result.firewall).join("\n")}\n`);
  const { weights_changed: changed } = result;
  for (const w of changed.slice(0, changed.length > SHOWN ? SHOWN - 1 : SHOWN)) {
    console.log(
      `changed ${w.tensor} [${w.shape.join(", ")}] by rank ${w.rank}, ${percent(w.relative)} of its norm`,
    );
  }
  if (changed.length > SHOWN) console.log(`and ${changed.length - SHOWN + 1} tensors more; --json has all`);
  const t = result.time_s;
  console.log(
    `time: load ${seconds(t.load)}, prepare ${seconds(t.prepare)}, edit ${seconds(t.edit)}, ` +
      `evaluate ${seconds(t.evaluate)}; device memory at most ${
        (result.memory.gpu_peak_bytes / 2 ** 20).toFixed(0)
      } MiB ` +
      `(weights ${(result.memory.gpu_weights_bytes / 2 ** 20).toFixed(0)})`,
  );
  for (const r of result.statistics) {
    console.log(
      `solver: ${r.route} route for C of layer ${r.layer}, condition at least ${
        r.condition.toExponential(0)
      }`,
    );
  }
  for (const sentence of result.notes) console.log(`note: ${sentence}`);
  if (result.written.length) console.log(`written: ${result.written.join(", ")}`);
}

function clip(text: string, length = 44): string {
  const line = text.replace(/\s+/g, " ");
  return line.length > length ? `${line.slice(0, length - 1)}…` : line;
}

function took(success: boolean, refused: boolean): string {
  return success ? "The edit took" : refused ? "The edit was refused" : "The edit did NOT take";
}
