/** `emend generate`: continues prompts, with or without edits. */
import { Command } from "npm:commander@15.1.0";
import { InputError } from "../engine/io/errors.ts";
import { generate } from "../engine/models/generate.ts";
import { applyPatch, readPatch, requireBase } from "../patches/patch.ts";
import { collect, number } from "./inputs.ts";
import { openSession } from "./model.ts";
import { printJson, progress } from "./terminal.ts";

interface Flags {
  model: string;
  prompt: string[];
  patch: string[];
  maxTokens: string;
  temperature: string;
  topK?: string;
  topP?: string;
  seed: string;
  json?: boolean;
}

export function generateCommand(): Command {
  return new Command("generate")
    .description("Continue prompts; greedy unless a temperature is given")
    .requiredOption("--model <M>", "a model folder, a .gguf file, or atlas")
    .option("--prompt <text>", "the prompt; may be repeated", collect, [])
    .option("--patch <file>", "apply this edit first; may be repeated, in order", collect, [])
    .option("--max-tokens <n>", "new tokens at most", "40")
    .option("--temperature <t>", "above 0: sample", "0")
    .option("--top-k <k>", "sample from the k likeliest tokens")
    .option("--top-p <p>", "sample from the likeliest tokens that reach this probability")
    .option("--seed <n>", "seed of the sampling", "0")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      '\nExample:\n  deno run -A cli.ts generate --model atlas --prompt "The capital of France is"',
    )
    .action((flags: Flags) => runGenerate(flags));
}

async function runGenerate(flags: Flags): Promise<void> {
  if (flags.prompt.length === 0) throw new InputError("--prompt is missing");
  const options = {
    maxTokens: number("--max-tokens", flags.maxTokens, 1, 1e6, true),
    temperature: number("--temperature", flags.temperature, 0, 100),
    topK: flags.topK === undefined ? undefined : number("--top-k", flags.topK, 1, 1e6, true),
    topP: flags.topP === undefined ? undefined : number("--top-p", flags.topP, 0, 1),
    seed: number("--seed", flags.seed, 0, 2 ** 32 - 1, true),
  };
  const patches = await Promise.all(flags.patch.map(readPatch));
  using session = await openSession(flags.model);
  const { model } = session;
  using applied = new DisposableStack();
  for (const [i, patch] of patches.entries()) {
    await requireBase(patch, model, flags.patch[i]);
    applied.use(applyPatch(model, patch));
  }
  const prompts = flags.prompt.map((text) => model.tokenizer.encode(text));
  using bar = progress("Generating");
  const texts = await generate(model, prompts, {
    ...options,
    onTokens: (n) => bar.update(n, options.maxTokens),
  });
  bar[Symbol.dispose]();
  const outputs = texts.map((tokens, i) => ({
    prompt: flags.prompt[i],
    text: model.tokenizer.decode(tokens),
    tokens,
  }));
  if (flags.json) printJson({ outputs });
  else for (const { prompt, text } of outputs) console.log(`${prompt}${text}`);
}
