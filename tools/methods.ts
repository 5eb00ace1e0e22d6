/**
 * The table of docs/methods.md: ten edits by every method that the project has, on one model in one run, each
 * method in a process of its own. Results are kept in a folder; started again it goes on where it was.
 *
 *   deno run -A tools/methods.ts --model M --dataset D --out DIR [--limit 10] [--methods a,b] [--print]
 *       [--set METHOD.KEY=VALUE]...
 */
import { Command } from "npm:commander@15.1.0";
import { collect, parseSettings } from "../cli/inputs.ts";
import { METHODS } from "../editors/methods.ts";
import type { Measured } from "./methods/measure.ts";
import { traitsOf } from "./methods/traits.ts";

const flags = new Command()
  .requiredOption("--model <M>")
  .requiredOption("--dataset <D>")
  .requiredOption("--out <dir>", "folder of the results")
  .option("--limit <n>", "edits of each method", "10")
  .option("--methods <list>")
  .option("--set <method.key=value>", "one hyper-parameter of one method; may be repeated", collect, [])
  .option("--print", "run nothing")
  .parse(Deno.args, { from: "user" }).opts();

/** A method's own hyper-parameters. */
function hparamsOf(method: string): Record<string, unknown> {
  const own = (flags.set as string[]).filter((text) => text.startsWith(`${method}.`));
  return parseSettings(own.map((text) => text.slice(method.length + 1)));
}

const fileOf = (method: string) => `${flags.out}/${method}.json`;

async function run(method: string): Promise<void> {
  const script = new URL("./methods/measure.ts", import.meta.url).pathname;
  const given = JSON.stringify(hparamsOf(method));
  const args = ["run", "-A", script, flags.model, flags.dataset, method, flags.limit, given];
  console.error(`${method} …`);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, stdin: "null" }).output();
  const said = new TextDecoder().decode(stderr).trim();
  if (said) console.error(said.replaceAll(/^/gm, "  "));
  if (code !== 0) return console.error(`  ${method} gave no result (exit ${code})`);
  await Deno.writeFile(fileOf(method), stdout);
}

/** "layer.1.mlp.down, layer.2.mlp.down" as "mlp.down of 2 layers". */
export function areaOf(area: readonly string[]): string {
  const layers = Map.groupBy(area, (place) => place.replace(/layer\.\d+\./, ""));
  if (layers.size > 4) return `${area.length} tensors`;
  return [...layers].map(([what, { length }]) =>
    area.some((place) => place.endsWith(what) && place !== what)
      ? `${what}, ${length} layer${length > 1 ? "s" : ""}`
      : what
  ).join("; ");
}

const percent = (x?: number) => x === undefined || Number.isNaN(x) ? "–" : (100 * x).toFixed(1);
const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);

function row({ method, area, numbers, online, seconds, score, metrics, ...bytes }: Measured): string[] {
  const { before, batch } = traitsOf(method);
  return [
    method,
    before,
    online ? "yes" : "no",
    batch ? "yes" : "no",
    areaOf(area),
    numbers.toLocaleString("en"),
    seconds.toFixed(1),
    mib(bytes.gpu_peak_bytes - bytes.gpu_model_bytes),
    mib(bytes.host_peak_bytes),
    ...[score, metrics.ES, metrics.PS, metrics.NS].map(percent),
  ];
}

await Deno.mkdir(flags.out, { recursive: true });
const rows: string[][] = [];
for (const method of flags.methods?.split(",") ?? METHODS.map(({ name }) => name)) {
  const read = () => Deno.readTextFile(fileOf(method)).catch(() => undefined);
  if (!flags.print && !await read()) await run(method);
  const text = await read();
  if (text) rows.push(row(JSON.parse(text)));
}
const head = [
  "method",
  "beforehand",
  "online",
  "batch",
  "edit area",
  "numbers",
  "s for all",
  "device MiB more",
];
head.push("host MiB", "Score", "ES", "PS", "NS");
console.log([head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n"));
