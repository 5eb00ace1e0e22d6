/** What people see: progress bars with time left (on stderr, only on a terminal), tables, percentages. */
import process from "node:process";
import cliProgress from "npm:cli-progress@3.12.0";

/** A running progress bar. */
export interface Progress extends Disposable {
  update(done: number, total: number): void;
}

/** Starts a bar; silent when stderr is no terminal. It appears with the first update. */
export function progress(label: string): Progress {
  let bar: cliProgress.SingleBar | undefined;
  const visible = Deno.stderr.isTerminal();
  return {
    update(done, total) {
      if (!visible) return;
      if (!bar) {
        bar = new cliProgress.SingleBar({
          format: `${label.padEnd(22)} {bar} {percentage}%  {eta_formatted} left`,
          stream: process.stderr,
          hideCursor: true,
          clearOnComplete: true,
          etaBuffer: 20,
          formatTime: timeLeft,
        }, cliProgress.Presets.shades_classic);
        bar.start(total, 0);
      }
      bar.setTotal(total);
      bar.update(done);
    },
    [Symbol.dispose]: () => bar?.stop(),
  };
}

/** Seconds for the bar; a text where it cannot tell yet. */
function timeLeft(s: number | string): string {
  if (typeof s === "string") return "?";
  if (s < 100) return `${s} s`;
  const minutes = Math.round(s / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Columns padded to their widest cell; the first row is the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, c) => Math.max(...rows.map((r) => r[c].length)));
  const line = (r: readonly string[]) => r.map((cell, c) => cell.padEnd(widths[c])).join("  ").trimEnd();
  return [line(rows[0]), widths.map((w) => "─".repeat(w)).join("  "), ...rows.slice(1).map(line)].join("\n");
}

/** A probability for people. */
export function percent(p: number): string {
  return p >= 0.0995
    ? `${(100 * p).toFixed(0)} %`
    : p >= 0.001
    ? `${(100 * p).toFixed(1)} %`
    : `${p.toExponential(0)}`;
}

/** Seconds for people. */
export function seconds(s: number): string {
  return s < 10 ? `${s.toFixed(1)} s` : s < 120 ? `${s.toFixed(0)} s` : `${(s / 60).toFixed(1)} min`;
}

/** One JSON object on stdout, for machines. */
export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, null, 2));
}
