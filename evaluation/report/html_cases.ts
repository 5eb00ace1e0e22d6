/**
 * The cases of a report, each to be opened: its requests, what every probe said before and after with
 * probabilities, tokens and texts, and how the edit went. Plain HTML, so that it reads without a script.
 */
import { fill } from "../../editors/requests.ts";
import type { Probe } from "../cases.ts";
import type { CaseLine, Forced, Reading, Readings, RetainedLine } from "../records.ts";
import { successMetric } from "../summarise.ts";
import { decimals } from "./about.ts";
import type { LabelledRun } from "./groups.ts";
import { html, type Markup, words } from "./markup.ts";

/** What became of an edit: never made, not taken, taken and lost to later edits, or there. */
export type CaseState = "unmade" | "failed" | "forgotten" | "held";

/** A case of a run, with what is needed to show it. */
export interface ShownCase {
  run: LabelledRun;
  line: CaseLine;
  late?: RetainedLine;
  state: CaseState;
  /** Place in the report, from 0. */
  at: number;
}

/** States for people. */
export const STATES: Record<CaseState, string> = {
  unmade: "not made",
  failed: "failed",
  forgotten: "forgotten",
  held: "held",
};

/** All cases of some runs, in order. */
export function casesOf(runs: readonly LabelledRun[]): ShownCase[] {
  let at = 0;
  return runs.flatMap((run) => {
    const metric = successMetric(run.lines);
    const late = new Map(run.retained?.map((line) => [line.index, line]));
    return run.lines.map((line) => ({
      run,
      line,
      late: late.get(line.index),
      state: stateOf(line, late.get(line.index), metric),
      at: at++,
    }));
  });
}

function stateOf(line: CaseLine, late: RetainedLine | undefined, metric: string | undefined): CaseState {
  if (line.edit.failed !== undefined) return "unmade";
  if (metric === undefined) return "held";
  if (line.metrics.after[metric] < 1) return "failed";
  return late && late.metrics[metric] < 1 ? "forgotten" : "held";
}

/** One case, closed. */
export function caseMarkup({ run, line, late, state, at }: ShownCase): Markup {
  const [{ prompt, subject, target }, ...more] = line.requests;
  return html`
    <details class="case ${state}" data-run="${run.key}" data-state="${state}" data-at="${at}">
    <summary><span class="state">${STATES[state]}</span> ${words(fill(prompt, subject).text)} → ${words(
      target.trim(),
    )}
    <span class="soft">${more.length > 0 && `and ${more.length} more · `}case ${words(line.id)} at ${line
      .index} · ${run.label}</span></summary>
    ${requests(line)}
    ${probes(line, late)}
    ${texts(line, late)}
    ${editing(line)}
    </details>
  `;
}

function requests({ requests }: CaseLine): Markup {
  return html`
    <h4>Requests</h4>
    <ul>${requests.map(({ prompt, subject, target, true: old }) =>
      html`<li>${words(fill(prompt, subject).text)} → <b>${words(target.trim())}</b>${
        old !== undefined && html`, truly ${words(old.trim())}`
      } <span class="soft">subject ${words(subject)}</span></li>`
    )}</ul>
  `;
}

/** A state of the model that a table has columns for. */
interface State {
  name: string;
  readings: Readings;
}

function statesOf({ before, after }: CaseLine, late: RetainedLine | undefined): State[] {
  return [
    { name: "before", readings: before },
    { name: late ? "right after" : "after", readings: after },
    ...(late ? [{ name: "in the end", readings: late.readings }] : []),
  ];
}

function probes(line: CaseLine, late: RetainedLine | undefined): Markup {
  const asked = line.probes.map((probe, i) => ({ probe, i })).filter(({ probe }) =>
    probe.kind !== "generation"
  );
  if (!asked.length) return html``;
  const states = statesOf(line, late);
  const spoken = states.some(({ readings }) => readings.probes.some(({ text }) => text !== undefined));
  return html`
    <h4>Probes</h4>
    <div class="wide">
      <table class="probes">
        <thead>
          <tr><th>probe</th><th></th>
    <th>answer</th><th>rival</th><th>answer's tokens</th>${spoken && html`<th>says</th>`}</tr>
        </thead>
        <tbody>${asked.flatMap(({ probe, i }) =>
          probeRows(probe, states.map((s) => ({ ...s, reading: s.readings.probes[i] ?? {} })), spoken)
        )}</tbody>
      </table>
    </div>
    <p class="soft">Probabilities are geometric means over the tokens. A token is right when it is the likeliest
    one, given the answer so far.</p>
  `;
}

function probeRows(
  { kind, group, prompt, answers, expect, rival }: Probe,
  states: (State & { reading: Reading })[],
  spoken: boolean,
): Markup[] {
  const wanted = answers[0]?.[0];
  const head = html`
    <td class="prompt"
      rowspan="${states.length}"><span class="soft">${kind}${group !== undefined &&
        ` · ${group}`}${expect === "unchanged" && " · should stay"}</span><br>${words(
          prompt,
        )}<br><span class="soft">${wanted !== undefined &&
        html`${words(wanted.trim())}`}${rival !== undefined && html`
        against ${words(rival.trim())}
      `}</span></td>
  `;
  return states.map(({ name, reading: { answer, rival, text } }, at) =>
    html`<tr>${at === 0 && head}<td class="soft">${name}</td><td class="p">${probability(answer)}</td>
<td class="p">${probability(rival)}</td><td>${tokens(answer)}</td>${
      spoken && html`<td class="says">${text === undefined ? html`` : words(text.trim())}</td>`
    }</tr>`
  );
}

function probability(forced: Forced | undefined): Markup {
  if (!forced?.logProbs.length) return html`–`;
  const mean = forced.logProbs.reduce((sum, x) => sum + (x ?? -Infinity), 0) / forced.logProbs.length;
  return html`${percent(Math.exp(mean))}`;
}

function percent(p: number): string {
  return p === 0
    ? "0 %"
    : p < 5e-5
    ? `${(100 * p).toExponential(0)} %`
    : `${decimals(100 * p, p < 0.0995 ? 1 : 100)} %`;
}

/** Marks and not colours alone say what is right. */
function tokens(forced: Forced | undefined): Markup[] {
  return (forced?.tokens ?? []).map((id, i) => {
    const { logProbs, argmax, pieces } = forced!;
    const right = id === argmax[i];
    const p = Math.exp(logProbs[i] ?? -Infinity);
    const name = (list: "tokens" | "argmax", id: number) => pieces?.[list][i]?.trim() || `token ${id}`;
    const piece = pieces && html`
      ${words(name("tokens", id))}
    `;
    const instead = !right && pieces &&
      html`<span class="soft">, not ${words(name("argmax", argmax[i]))}</span>`;
    const title = right ? `token ${id}` : `token ${id}; the likeliest is ${argmax[i]}`;
    return html`<span class="token ${right ? "right" : "wrong"}" title="${title}">${
      right ? "✓" : "✗"
    } ${piece}${percent(p)}${instead}</span>`;
  });
}

function texts(line: CaseLine, late: RetainedLine | undefined): Markup {
  const states = statesOf(line, late).filter(({ readings }) => readings.texts?.length);
  if (!states.length) return html``;
  return html`
    <h4>Sampled texts</h4>
    <div class="pair">${states.map(({ name, readings }) =>
      html`<div><span class="soft">${name}</span>${
        readings.texts!.map((text) => html`<p>${words(text)}</p>`)
      }</div>`
    )}</div>
  `;
}

function editing({ edit, time_s, restored }: CaseLine): Markup {
  const { steps, loss, warnings, changes, failed, firewall } = edit;
  const facts = [
    failed === undefined ? `${steps} steps` : `not made: ${failed}`,
    typeof loss === "number" && `loss ${decimals(loss, 1)}`,
    `${decimals(time_s.edit, 1)} s`,
    ...changes.map(({ role, frobenius, relative }) =>
      `${role}: ‖ΔW‖ ${decimals(frobenius ?? NaN, 1)}, ${decimals((relative ?? NaN) * 100, 1)} % of ‖W‖`
    ),
    firewall &&
    (firewall.refused !== undefined
      ? `refused by the firewall: ${firewall.refused}`
      : `scaled to ${decimals(firewall.scale, 1)} by the firewall`),
    restored !== undefined &&
    (restored ? "weights restored bit for bit" : "weights NOT restored bit for bit"),
  ].filter((fact) => typeof fact === "string");
  return html`<h4>The edit</h4><p>${facts.join(" · ")}</p>${
    warnings.map((text) => html`<p class="note">${words(text)}</p>`)
  }`;
}
