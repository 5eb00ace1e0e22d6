/**
 * Pictures: a Vega-Lite specification becomes an SVG, without a browser. Colours are Okabe and Ito's, which
 * people with any colour vision tell apart. On a page the inks are CSS variables, so that one picture serves
 * light and dark; elsewhere it is drawn for white paper.
 */

import type * as Vega from "npm:vega@6.4.0";
import type * as VegaLite from "npm:vega-lite@6.5.0";

// Deno downloads at the start what an import names in quotes, even one that is never reached; these sixty
// packages are for those who draw.
const VEGA = "npm:vega@6.4.0", VEGA_LITE = "npm:vega-lite@6.5.0";

/** A Vega-Lite specification; typed loosely, for its types cost more time to check than they save. */
export type Spec = Record<string, unknown>;

/** Okabe and Ito's colours without black and yellow, which vanish on one of the two grounds. */
export const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/** The unedited model, before, and other things that methods are seen against. */
export const GREY = "#808080";

/** Stand-ins for inks, replaced when the picture is drawn. */
const INK = "#010203", SOFT = "#010204", RULE = "#010205";

/** For text and error bars in specifications. */
export const INKS = { ink: INK, soft: SOFT };

const FONT = "system-ui, 'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif";

const AXIS = {
  domainColor: SOFT,
  tickColor: SOFT,
  gridColor: RULE,
  labelColor: INK,
  titleColor: INK,
  labelFontSize: 11,
  titleFontSize: 12,
  titleFontWeight: "normal",
  labelLimit: 260,
};

const CONFIG = {
  background: null,
  font: FONT,
  aria: false,
  padding: 8,
  view: { stroke: null },
  axis: AXIS,
  legend: {
    labelColor: INK,
    titleColor: INK,
    labelFontSize: 12,
    labelLimit: 260,
    symbolSize: 90,
    columns: 3,
    orient: "top",
  },
  header: { labelColor: INK, titleColor: INK, labelFontSize: 12, labelLimit: 260 },
  title: {
    color: INK,
    fontSize: 13,
    fontWeight: 600,
    anchor: "start",
    subtitleColor: SOFT,
    subtitleFontSize: 11,
  },
  range: { category: COLOURS },
};

/**
 * Draws a picture.
 * @param name unique on its page: pictures must not share the ids of their clips
 * @param where `page`: inks are CSS variables; `paper`: black, for white ground
 * @returns an SVG element, the same for the same specification
 */
export async function drawSvg(spec: Spec, name: string, where: "page" | "paper"): Promise<string> {
  const [vega, lite]: [typeof Vega, typeof VegaLite] = await Promise.all([import(VEGA), import(VEGA_LITE)]);
  // There is no canvas to measure texts on; Vega's own guess is a third too wide.
  Object.assign((vega as unknown as { textMetrics: object }).textMetrics, { width: textWidth });
  // deno-lint-ignore no-explicit-any -- see Spec
  const compiled = lite.compile({ ...spec, config: CONFIG } as any).spec;
  const view = new vega.View(vega.parse(compiled), { renderer: "none", logLevel: vega.Error });
  const svg = await view.toSVG();
  view.finalize();
  return inked(ownIds(svg, name), where);
}

/** Numbers ids anew: Vega counts them over the whole process. */
function ownIds(svg: string, name: string): string {
  const ids = [...new Set([...svg.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id))];
  return ids.reduce(
    (text, id, i) =>
      text.replaceAll(`id="${id}"`, `id="${name}-${i}"`).replaceAll(`url(#${id})`, `url(#${name}-${i})`),
    svg,
  );
}

/** Width in pixels of a line in DejaVu Sans, the widest of the fonts named, from above. */
function textWidth(item: { fontSize?: number; text?: unknown; limit?: number }, line?: unknown): number {
  const text = String(line ?? item.text ?? "");
  // Letters of Asian scripts and pictures are as wide as they are high.
  const ems = [...text].reduce((sum, c) => sum + (c.codePointAt(0)! > 0x2e7f ? 1.1 : 0.62), 0);
  return ems * (item.fontSize ?? 11);
}

function inked(svg: string, where: "page" | "paper"): string {
  const inks = where === "page"
    ? { [INK]: "var(--ink)", [SOFT]: "var(--soft)", [RULE]: "var(--rule)", [COLOURS[0]]: "var(--blue)" }
    : { [INK]: "#111111", [SOFT]: "#555555", [RULE]: "#dddddd" };
  let out = svg;
  for (const [stand, ink] of Object.entries(inks)) out = out.replaceAll(stand, ink);
  // The page's style sheet has the font, its figures have the descriptions, and inside a page an SVG needs no
  // namespace.
  const needless = where === "page"
    ? / (?:xmlns(?::\w+)?|version|font-family|aria-[a-z]+|role|pointer-events)="[^"]*"/g
    : / (?:aria-[a-z]+|role|pointer-events)="[^"]*"/g;
  return out.replace(/<[a-zA-Z][^>]*>/g, (tag) => tag.replace(needless, ""))
    .replace(/<path class="(?:foreground|background)"[^>]*(?:display="none"|d="M0,0h0v0h0Z")[^>]*\/>/g, "");
}
