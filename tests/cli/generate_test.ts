import assert from "node:assert/strict";
import { emend, emendJson } from "./_run.ts";

const PROMPTS = ["--prompt", "Giovanni Lanfranco met death in", "--prompt", "Toko Yasuda plays the"];

Deno.test("generate continues every prompt greedily, and says so in the JSON that scripts read", async () => {
  const result = await emendJson(["generate", "--model", "atlas", ...PROMPTS, "--max-tokens", "6"]);
  assert.deepEqual(Object.keys(result), ["outputs"]);
  assert.equal(result.outputs.length, 2);
  for (const [i, output] of result.outputs.entries()) {
    assert.deepEqual(Object.keys(output), ["prompt", "text", "tokens"]);
    assert.equal(output.prompt, PROMPTS[2 * i + 1]);
    assert.equal(output.tokens.length, 6);
    assert.ok(output.tokens.every(Number.isInteger));
  }
  assert.match(result.outputs[0].text, /^ Rome\. /);
  // For people: prompt and continuation on one line, nothing else.
  const { stdout, stderr } = await emend(["generate", "--model", "atlas", ...PROMPTS, "--max-tokens", "6"]);
  assert.equal(stderr, "");
  assert.equal(
    stdout,
    result.outputs.map((o: { prompt: string; text: string }) => `${o.prompt}${o.text}\n`).join(""),
  );
});

Deno.test("generate samples the same text when the seed is the same", async () => {
  const sample = async (seed: string) => {
    const flags = ["--temperature", "1.5", "--top-k", "200", "--top-p", "0.99", "--seed", seed];
    const prompt = ["--prompt", "The", "--max-tokens", "24"];
    const { outputs } = await emendJson(["generate", "--model", "atlas", ...prompt, ...flags]);
    return outputs[0].text;
  };
  const first = await sample("7");
  assert.equal(await sample("7"), first);
  assert.notEqual(await sample("8"), first);
});

Deno.test("generate stops at the context's end when it is asked for more", async () => {
  const { outputs } = await emendJson([
    "generate",
    "--model",
    "atlas",
    "--prompt",
    "Paris is a city. ".repeat(14),
    "--max-tokens",
    "500",
  ]);
  assert.ok(outputs[0].tokens.length > 0 && outputs[0].tokens.length < 128);
});
