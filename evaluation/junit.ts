/**
 * JUnit XML, as continuous integration systems read it: one suite for what must change and one for what must
 * not, a test case a probe.
 */
import type { PackResult, ProbeResult } from "./pack_run.ts";
import { probeName } from "./pack.ts";

const SUITES = { change: "must-change", keep: "must-not-change" } as const;

/**
 * The report of a pack.
 * @param pack the pack's name, the name of all suites together
 */
export function junitXml({ probes }: PackResult, pack: string): string {
  const suites = (["change", "keep"] as const).flatMap((expect) => {
    const mine = probes.filter(({ probe }) => probe.expect === expect);
    if (mine.length === 0) return [];
    const cases = mine.map((result) => testCase(result, `${pack}.${SUITES[expect]}`));
    return [
      `  <testsuite${attributes({ name: SUITES[expect], ...totals(mine) })}>`,
      ...cases,
      "  </testsuite>",
    ];
  });
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites${attributes({ name: pack, ...totals(probes) })}>`,
    ...suites,
    "</testsuites>",
    "",
  ].join("\n");
}

function totals(results: readonly ProbeResult[]) {
  const count = (outcome: string) => results.filter((r) => r.outcome === outcome).length;
  return {
    tests: results.length,
    failures: count("failed"),
    errors: 0,
    skipped: count("skipped"),
    time: results.reduce((sum, { seconds }) => sum + seconds, 0).toFixed(3),
  };
}

function testCase({ probe, outcome, expected, said, why, seconds }: ProbeResult, classname: string): string {
  const place = probe.line ? `line ${probe.line}: ` : "";
  const head = attributes({ name: place + probeName(probe), classname, time: seconds.toFixed(3) });
  if (outcome === "passed") return `    <testcase${head}/>`;
  const body = outcome === "skipped" ? `      <skipped${attributes({ message: why! })}/>` : [
    `      <failure${attributes({ message: why!, type: probe.mode })}>`,
    escapeXml(`prompt: ${probe.prompt}\nexpected: ${expected}\nsaid: ${said}`),
    "</failure>",
  ].join("");
  return `    <testcase${head}>\n${body}\n    </testcase>`;
}

function attributes(values: Record<string, string | number>): string {
  return Object.entries(values).map(([key, value]) => ` ${key}="${escapeXml(String(value))}"`).join("");
}

/** Text for XML 1.0, fit for attributes too; what XML cannot hold becomes U+FFFD. */
export function escapeXml(text: string): string {
  return text
    // deno-lint-ignore no-control-regex -- these are what XML forbids
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, "\ufffd")
    .replace(/[&<>"'\n\r\t]/g, (c) => ESCAPES[c]);
}

const ESCAPES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
  // Parsers make spaces of bare ones in attributes.
  "\n": "&#10;",
  "\r": "&#13;",
  "\t": "&#9;",
};
