/**
 * The report as one HTML page that needs nothing else: styles, script and pictures are in it, and its content
 * policy lets nothing be loaded and no other script run.
 */
import { createHash } from "node:crypto";
import { factsOf, hparamsOf } from "./facts.ts";
import { forgettingCurve } from "./forgetting.ts";
import type { Block, Group, LabelledRun } from "./groups.ts";
import { memoryBars, metricBars, type Picture, timeBars } from "./charts.ts";
import { batchCurve, driftCurve, sequenceCurve } from "./curves.ts";
import { caseMarkup, casesOf, STATES } from "./html_cases.ts";
import { html, type Markup, ready } from "./markup.ts";
import style from "./page.css" with { type: "text" };
import script from "./page.js" with { type: "text" };
import { drawSvg } from "./svg.ts";
import { legendOf, marksBest, type Table, tablesOf } from "./tables.ts";

const GENERATOR = '<meta name="generator" content="emend report">';

/** Cases that a page opens; more of them would be slow to show. */
const MAX_CASES = 500;

/** Whether a file's beginning is that of such a page. */
export function isHtmlReport(text: string): boolean {
  return text.slice(0, 500).includes(GENERATOR);
}

/** The page: the same runs give the same bytes. */
export async function htmlReport(groups: readonly Group[]): Promise<string> {
  const runs = groups.flatMap(({ runs }) => runs);
  const sections: Markup[] = [];
  for (const [i, group] of groups.entries()) sections.push(await groupSection(group, `group-${i + 1}`));
  const curves = await curveSection(groups);
  const hash = createHash("sha256").update(script).digest("base64");
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${hash}'`;
  const title = `emend report: ${[...new Set(runs.map(({ config }) => config.method))].join(", ")}`;
  return html`
    <!doctype html>
    <html lang="en">
      <head>
    <meta charset="utf-8">
    ${ready(GENERATOR)}
    <meta http-equiv="Content-Security-Policy" content="${policy}">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>${title}</title>
    <style>
    ${ready(style)}</style>
      </head>
      <body>
        <header>
          <h1>Knowledge-editing report</h1>
          <p class="soft">${runs.length} run${runs.length === 1
            ? ""
            : "s"}. Values are means over cases ± half the
    95 % interval of the mean (1.96·sd/√n). Nothing is averaged over runs or protocols.</p>
          <nav>
            <ul>${groups.map(({ title }, i) =>
              html`<li><a href="#group-${i + 1}">${title}</a></li>`
            )}${curves &&
              html`<li><a href="#curves">Over numbers of edits</a></li>`}<li><a href="#cases">Cases</a></li></ul>
          </nav>
        </header>
        <main>
    ${sections}
    ${curves}
    ${caseSection(runs)}
        </main>
        <script>${ready(script)}</script>
      </body>
    </html>
  `.markup.trim() + "\n";
}

async function groupSection(group: Group, id: string): Promise<Markup> {
  const blocks: Markup[] = [];
  for (const [i, block] of group.blocks.entries()) blocks.push(await blockSection(block, `${id}-${i + 1}`));
  const drift = driftCurve(group, `${id}-drift`);
  const forgetting = forgettingCurve(group, `${id}-forgetting`);
  const pictures = [
    ...(forgetting ? [await figure(forgetting)] : []),
    ...(drift ? [await figure(drift)] : []),
    html`<div class="side">${await figure(timeBars(group, `${id}-time`))}${await figure(
      memoryBars(group, `${id}-memory`),
    )}</div>`,
  ];
  const { model, dataset, runs } = group;
  return html`
    <section id="${id}"><h2>${group.title}</h2>
        ${group.notes.map((note) => html`<p class="note">${note}</p>`)}
        <p class="soft">Model ${model.name} (${model.type}), SHA-256 ${model.hash}.
    Dataset ${dataset.name} (${dataset.layout}, ${dataset.cases} cases), SHA-256 ${dataset.hash}.</p>
    <h3>What was run</h3>${runs.map((run) => runDetails(run, runs.length === 1))}
        ${blocks}
        <h3>Along the run, time and memory</h3>
        ${pictures}
        </section>
  `;
}

function runDetails(run: LabelledRun, open: boolean): Markup {
  const rows = (list: { name: string; value: string }[]) =>
    html`
      <table class="facts">
        <tbody>${list.map(({ name, value }) =>
          html`
            <tr>
              <th>${name}</th>
              <td><bdi>${value}</bdi></td>
            </tr>
          `
        )}</tbody>
      </table>
    `;
  return html`
    <details class="run" ${ready(open ? "open" : "")}><summary>${run.label}</summary>${rows(factsOf(run))}
    <h4>Hyper-parameters</h4>${rows(hparamsOf(run))}</details>
  `;
}

async function blockSection(block: Block, id: string): Promise<Markup> {
  const tables = tablesOf(block, { detail: true });
  const families: Markup[] = [];
  for (const table of tables) {
    const picture = metricBars(
      block,
      table.family,
      table.metrics,
      `${id}-${table.family.key.replaceAll(".", "-")}`,
    );
    const shown = html`${tableMarkup(table)}${await figure(picture)}${legendMarkup(table)}`;
    families.push(
      table.family.detail
        ? html`
          <details class="family"><summary>${table.title}</summary>${shown}</details>
        `
        : html`
          <div class="family"><h4>${table.title}</h4>${shown}</div>
        `,
    );
  }
  return html`<h3>${block.cases} case${block.cases === 1 ? "" : "s"}</h3>
${
    marksBest(tables) &&
    html`<p class="soft">Marked: the best mean of the edited models on the same cases, whether or not its interval
lies apart.</p>`
  }${families}`;
}

function tableMarkup({ headings, rows }: Table): Markup {
  return html`
    <div class="wide">
      <table class="numbers">
        <thead>
          <tr><th></th>${headings.map((head) => html`<th>${head}</th>`)}</tr>
        </thead>
        <tbody>${rows.map(({ label, cells }) =>
          html`<tr><th>${label}</th>${
            cells.map(({ text, best }) => best ? html`<td class="best">${text}</td>` : html`<td>${text}</td>`)
          }</tr>`
        )}</tbody>
      </table>
    </div>
  `;
}

/** What each number is and what it does not say. */
function legendMarkup(table: Table): Markup {
  return html`
    <details class="legend">
      <summary>What these say, and what not</summary>
      <ul>${legendOf(table).map(({ metric, title, formula, misses, source }) =>
        html`<li><b>${metric}</b>: ${title}${formula && html`. Is: ${formula}`}${
          misses && html`. Misses: ${misses}`
        }${source && html`. <i>${source}</i>`}</li>`
      )}</ul>
    </details>
  `;
}

/** Curves over batch sizes and numbers of edits: of runs on one dataset and model, whatever their protocol. */
async function curveSection(groups: readonly Group[]): Promise<Markup | undefined> {
  const settings = [...Map.groupBy(groups, ({ model, dataset }) => `${model.hash} ${dataset.hash}`).values()];
  const parts: Markup[] = [];
  for (const [i, members] of settings.entries()) {
    const found = [batchCurve(members, `batch-${i}`), sequenceCurve(members, `sequence-${i}`)].filter((p) =>
      p
    );
    if (!found.length) continue;
    const [{ dataset, model }] = members;
    parts.push(html`<p><b>${dataset.name} · ${model.name}</b></p>`);
    for (const picture of found) parts.push(await figure(picture!));
  }
  return parts.length
    ? html`
      <section id="curves"><h2>Over numbers of edits</h2>${parts}</section>
    `
    : undefined;
}

async function figure({ name, title, caption, spec }: Picture): Promise<Markup> {
  const svg = await drawSvg(spec, name, "page");
  const described = html`
    <svg role="img" aria-label="${title}"
  `.markup + svg.slice("<svg ".length);
  return html`
    <figure>${ready(described)}<figcaption><b>${title}.</b> ${caption}</figcaption></figure>
  `;
}

function caseSection(runs: readonly LabelledRun[]): Markup {
  const all = casesOf(runs);
  const worse = all.toSorted((a, b) =>
    Number(a.state === "held") - Number(b.state === "held") || a.at - b.at
  );
  const shown = worse.slice(0, MAX_CASES).sort((a, b) => a.at - b.at);
  return html`
    <section id="cases">
      <h2>Cases</h2>
      <p
        class="soft">An edit is held when its rewrite succeeds (ES, or the whole answer under teacher forcing where there
    is no rival), forgotten when it did right after and does not after the last edit.${shown.length <
        all.length &&
      ` Here are ${shown.length} of ${all.length} cases, those that were not held first; all of them are in the runs' cases.jsonl.`}</p>
      <form id="controls" hidden>
        <input name="words" type="search" placeholder="Search subjects, prompts, texts" aria-label="Search">
        <select name="run" aria-label="Run"><option value="">all runs</option>${runs.map(({ key, label }) =>
          html`<option value="${key}">${label}</option>`
        )}</select>
        <select name="state" aria-label="State"><option value="">any outcome</option>${Object.entries(STATES)
          .map(([state, title]) => html`<option value="${state}">${title}</option>`)}</select>
        <select name="order" aria-label="Order"><option value="run">in order</option>
    <option value="failed">failed first</option></select>
        <span id="shown" class="soft" aria-live="polite"></span>
      </form>
      <div id="case-list">
    ${shown.map(caseMarkup)}</div>
    </section>
  `;
}
