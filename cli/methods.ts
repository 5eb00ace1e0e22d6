/** The methods as `--help` lists them. */
import { METHODS } from "../editors/methods.ts";

/** A line each: the name and what it is. */
export function methodList(): string {
  const width = Math.max(...METHODS.map(({ name }) => name.length));
  return METHODS.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`).join("\n");
}
