/**
 * Hostile bytes: whatever they are, a reader returns or throws InputError, soon, and without asking the
 * source for more than there is. 12,000 cases.
 */
import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import { InputError } from "../../../engine/io/errors.ts";
import { type GgufFile, parseGguf } from "../../../engine/io/gguf.ts";
import { describeModel } from "../../../engine/io/gguf_model.ts";
import { ggufTokenizer } from "../../../engine/io/gguf_tokenizer.ts";
import { parseSafetensors } from "../../../engine/io/safetensors.ts";
import { type ByteSource, fromBytes } from "../../../engine/io/source.ts";
import { safetensorsBytes } from "./_data.ts";
import { ARRAY, F32, ggufBytes, STRING, type TensorSpec, type Typed, U32 } from "./_gguf.ts";

/** Milliseconds that one case may take; the longest real ones take a few. */
const PATIENCE = 1000;

/** Runs a reader; true when it accepted the input. Anything but a result or an InputError fails the test. */
async function survives(bytes: Uint8Array, read: (source: ByteSource) => Promise<unknown>): Promise<boolean> {
  const start = performance.now();
  const inner = fromBytes("x", bytes);
  let asked = 0;
  const source: ByteSource = {
    ...inner,
    read(offset, length) {
      asked += length;
      return inner.read(offset, length);
    },
  };
  try {
    await read(source);
    // The header once, the tensors once.
    assert(asked <= 2 * bytes.length + 8, `read ${asked} bytes of ${bytes.length}`);
    return true;
  } catch (error) {
    assert(error instanceof InputError, error instanceof Error ? error.stack : String(error));
    assert(error.message.length < 2000, "the message is as long as the input");
    return false;
  } finally {
    const took = performance.now() - start;
    assert(took < PATIENCE, `took ${took} ms`);
  }
}

/** Opens a safetensors file and reads every tensor that it claims. */
async function readSafetensors(source: ByteSource): Promise<void> {
  const file = await parseSafetensors(source);
  let total = 0;
  for (const entry of file.entries.values()) total += (await file.read(entry)).length;
  assert(total <= source.size);
}

/** Opens a GGUF file, and as much of the model and the tokenizer in it as there is. */
async function readGguf(source: ByteSource): Promise<void> {
  const file: GgufFile = await parseGguf(source);
  for (const tensor of file.tensors.values()) {
    assert.equal((await source.read(tensor.offset, tensor.bytes)).length, tensor.bytes);
  }
  await describeModel(file);
  ggufTokenizer(file).encode("hello world");
}

/** Ways to spoil a valid file: flipped and overwritten bytes, whole 64-bit fields, cuts and growth. */
const spoil = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant("byte" as const), at: fc.nat(), value: fc.nat(255) }),
    fc.record({
      kind: fc.constant("field" as const),
      at: fc.nat(),
      value: fc.oneof(
        fc.constantFrom(0n, 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        fc.bigInt({ min: 0n, max: 4096n }),
      ),
    }),
    fc.record({ kind: fc.constant("cut" as const), at: fc.nat(), value: fc.constant(0) }),
    fc.record({ kind: fc.constant("grow" as const), at: fc.nat(64), value: fc.nat(255) }),
  ),
  { minLength: 1, maxLength: 4 },
);

function spoilt(
  valid: Uint8Array,
  changes: { kind: string; at: number; value: number | bigint }[],
): Uint8Array {
  let bytes = valid.slice();
  for (const { kind, at, value } of changes) {
    if (bytes.length < 8) break;
    // Most of what matters is near the front.
    const place = at % 3 === 0 ? at % bytes.length : at % Math.min(bytes.length, 600);
    if (kind === "byte") bytes[place] = Number(value);
    else if (kind === "field") {
      new DataView(bytes.buffer).setBigUint64(Math.min(place, bytes.length - 8), BigInt(value), true);
    } else if (kind === "cut") bytes = bytes.slice(0, place);
    else bytes = Uint8Array.from([...bytes, ...new Uint8Array(at).fill(Number(value))]);
  }
  return bytes;
}

const f32 = (shape: number[], begin: number, end: number) => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});
const validSafetensors = safetensorsBytes(
  { __metadata__: { format: "pt" }, a: f32([2, 3], 0, 24), b: { ...f32([4], 24, 32), dtype: "F16" } },
  32,
);

const letters = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i));
const llama: [string, Typed][] = [
  ["general.architecture", [STRING, "llama"]],
  ["llama.block_count", [U32, 1]],
  ["llama.context_length", [U32, 16]],
  ["llama.embedding_length", [U32, 8]],
  ["llama.feed_forward_length", [U32, 8]],
  ["llama.attention.head_count", [U32, 2]],
  ["llama.attention.layer_norm_rms_epsilon", [F32, 1e-5]],
  ["tokenizer.ggml.model", [STRING, "llama"]],
  ["tokenizer.ggml.bos_token_id", [U32, 1]],
  ["tokenizer.ggml.tokens", [ARRAY, [STRING, letters]]],
  ["tokenizer.ggml.scores", [ARRAY, [F32, letters.map((_, i) => -i)]]],
];
const floats = (name: string, shape: number[]): TensorSpec => ({
  name,
  shape,
  type: 0,
  data: new Uint8Array(4 * shape.reduce((product, size) => product * size, 1)),
});
const validGguf = ggufBytes(llama, [
  floats("token_embd.weight", [95, 8]),
  floats("output_norm.weight", [8]),
  floats("blk.0.attn_q.weight", [8, 8]),
]);

/** Runs a property; `accepted` must end within the bounds, so that both outcomes are known to be tried. */
async function fuzz<T>(
  arbitrary: fc.Arbitrary<T>,
  numRuns: number,
  run: (value: T) => Promise<boolean>,
  accepted: [least: number, most: number],
): Promise<void> {
  let count = 0;
  const property = fc.asyncProperty(arbitrary, async (value) => {
    if (await run(value)) count++;
  });
  await fc.assert(property, { numRuns, seed: 20250101 });
  assert(count >= accepted[0] && count <= accepted[1], `${count} of ${numRuns} cases were accepted`);
}

Deno.test("parseSafetensors() and parseGguf() accept the files that the fuzzing starts from", async () => {
  assert(await survives(validSafetensors, readSafetensors));
  assert(await survives(validGguf, readGguf));
});

Deno.test("parseSafetensors() returns or throws InputError for 4000 spoilt files", async () => {
  await fuzz(spoil, 4000, (changes) => survives(spoilt(validSafetensors, changes), readSafetensors), [
    50,
    3500,
  ]);
});

Deno.test("parseSafetensors() returns or throws InputError for 3000 files with random headers", async () => {
  const size = fc.oneof(fc.nat(8), fc.nat(), fc.constantFrom(-1, 0.5, 2 ** 53, 1e300, 2 ** 31));
  const entry = fc.record({
    dtype: fc.constantFrom("F32", "F16", "BOOL", "I64", "f32", ""),
    shape: fc.array(size, { maxLength: 4 }),
    data_offsets: fc.oneof(fc.tuple(size, size), fc.array(size), fc.constant([0, 4])),
  }, { requiredKeys: [] });
  const name = fc.constantFrom("a", "b", "__metadata__", "__proto__", "constructor", "");
  const header = fc.oneof(
    fc.dictionary(name, fc.oneof(entry, entry, fc.jsonValue())),
    fc.jsonValue(),
    fc.string(),
  );
  const arbitrary = fc.tuple(header, fc.uint8Array({ maxLength: 64 }));
  await fuzz(
    arbitrary,
    3000,
    ([value, data]) => survives(safetensorsBytes(value, data), readSafetensors),
    [1, 2000],
  );
});

Deno.test("parseGguf() returns or throws InputError for 4000 spoilt files", async () => {
  await fuzz(spoil, 4000, (changes) => survives(spoilt(validGguf, changes), readGguf), [50, 3500]);
});

Deno.test("parseGguf() returns or throws InputError for 1000 files of random entries", async () => {
  const size = fc.oneof(fc.bigInt({ min: 0n, max: 64n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));
  const tensor = fc.record({
    name: fc.constantFrom("token_embd.weight", "blk.0.attn_q.weight", "blk.9.x", "", "output.weight"),
    shape: fc.array(size, { maxLength: 5 }),
    type: fc.oneof(fc.constantFrom(0, 1, 2, 8, 30), fc.nat(60)),
    offset: fc.oneof(fc.constantFrom(0, 32, 64), fc.nat()),
  });
  const value: fc.Arbitrary<Typed> = fc.oneof(
    fc.tuple(fc.constant(U32), fc.nat()),
    fc.tuple(fc.constant(F32), fc.float()),
    fc.tuple(fc.constant(STRING), fc.constantFrom("llama", "gpt2", "qwen2", "x")),
    fc.tuple(fc.constant(ARRAY), fc.tuple(fc.constant(STRING), fc.array(fc.string()), size)),
  );
  const key = fc.constantFrom(...llama.map(([name]) => name));
  const replaced = fc.dictionary(key, value).map((changes) =>
    llama.map(([name, kept]): [string, Typed] => [name, changes[name] ?? kept])
  );
  await fuzz(
    fc.tuple(replaced, fc.array(tensor, { maxLength: 3 })),
    1000,
    ([metadata, tensors]) => survives(ggufBytes(metadata, tensors), readGguf),
    [0, 900],
  );
});
