/**
 * HTML that cannot be broken from inside: whatever is put into the `html` template is escaped, unless it came
 * out of that template itself.
 */

/** Markup that is ready. */
export interface Markup {
  readonly markup: string;
}

type Part = string | number | undefined | false | Markup | readonly Markup[];

/** A template whose parts are escaped; lists of markup are joined; `undefined` and `false` vanish. */
export function html(texts: TemplateStringsArray, ...parts: Part[]): Markup {
  return { markup: texts.reduce((out, text, i) => out + markupOf(parts[i - 1]) + text) };
}

/** Markup that we made by other means: style sheets, scripts, pictures. */
export function ready(markup: string): Markup {
  return { markup };
}

function markupOf(part: Part): string {
  if (part === undefined || part === false) return "";
  if (typeof part === "string" || typeof part === "number") return escapeHtml(String(part));
  return Array.isArray(part) ? part.map(({ markup }) => markup).join("") : (part as Markup).markup;
}

const ENTITIES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** For text and for quoted attributes; control characters, which HTML has no place for, become U+FFFD. */
export function escapeHtml(text: string): string {
  // deno-lint-ignore no-control-regex -- these are what is looked for
  return text.toWellFormed().replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "\ufffd").replace(
    /[&<>"']/g,
    (c) => ENTITIES[c],
  );
}

/** Text of others: it keeps its spaces, and its direction stays its own. */
export function words(text: string): Markup {
  return text === "" ? html`<i class="none">nothing</i>` : html`<bdi>${text}</bdi>`;
}
