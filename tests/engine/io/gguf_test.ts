import assert from "node:assert/strict";
import { InputError } from "../../../engine/io/errors.ts";
import { parseGguf } from "../../../engine/io/gguf.ts";
import { dequantise } from "../../../engine/io/gguf_quants.ts";
import { fromBytes, openFile } from "../../../engine/io/source.ts";
import { fixture, fixtureJson } from "./_data.ts";
import { ARRAY, BOOL, F32, ggufBytes, I64, STRING, U32, U64 } from "./_gguf.ts";

const parse = (bytes: Uint8Array) => parseGguf(fromBytes("x.gguf", bytes));

/** Parses bytes that must be refused, and checks the message. */
async function refuses(bytes: Uint8Array, message: RegExp): Promise<void> {
  await assert.rejects(parse(bytes), (error) => {
    assert(error instanceof InputError, String(error));
    assert.match(error.message, message);
    assert.match(error.message, /^Cannot read x\.gguf: .*[^.]$/);
    return true;
  });
}

const tensor = { name: "a", shape: [2, 32], type: 8, data: new Uint8Array(68) };

Deno.test("parseGguf() reads every kind of metadata value", async () => {
  const { metadata, version } = await parse(ggufBytes(
    [
      ["text", [STRING, "naïve"]],
      ["flag", [BOOL, 1]],
      ["n", [U32, 7]],
      ["small", [I64, -5n]],
      ["large", [U64, 2n ** 63n]],
      ["list", [ARRAY, [STRING, ["a", ""]]]],
      ["numbers", [ARRAY, [F32, [1.5, -2]]]],
      ["nested", [ARRAY, [ARRAY, [[BOOL, [0, 1]], [U32, [3]]]]]],
    ],
    [],
    { version: 2 },
  ));
  assert.equal(version, 2);
  assert.deepEqual(Object.fromEntries(metadata), {
    text: "naïve",
    flag: true,
    n: 7,
    small: -5,
    large: 2n ** 63n,
    list: ["a", ""],
    numbers: Float32Array.of(1.5, -2),
    nested: [[false, true], Uint32Array.of(3)],
  });
});

Deno.test("parseGguf() gives absolute offsets and reversed shapes when alignment is unusual", async () => {
  const alignment: [string, [number, unknown]][] = [["general.alignment", [U32, 64]]];
  const second = { name: "b", shape: [3], type: 0, data: Uint8Array.from({ length: 12 }, (_, i) => i) };
  const bytes = ggufBytes(alignment, [tensor, second], { alignment: 64 });
  const { tensors } = await parse(bytes);
  assert.deepEqual(tensors.get("a")!.shape, [2, 32]);
  assert.equal(tensors.get("a")!.bytes, 68);
  const { offset } = tensors.get("b")!;
  assert.equal(offset % 64, 0);
  assert.deepEqual(bytes.subarray(offset, offset + 12), second.data);
});

Deno.test("parseGguf() reads a header that is longer than its first read", async () => {
  const tokens = Array.from({ length: 60_000 }, (_, i) => `token number ${i}`);
  const bytes = ggufBytes([["tokens", [ARRAY, [STRING, tokens]]]], [tensor]);
  assert(bytes.length > 2 ** 20);
  assert.deepEqual((await parse(bytes)).metadata.get("tokens"), tokens);
});

Deno.test("parseGguf() names the problem when the header is malformed", async () => {
  const whole = ggufBytes([["a", [STRING, "b"]]], [tensor]);
  await refuses(new Uint8Array(64), /not a GGUF file/);
  await refuses(whole.subarray(0, 20), /not a GGUF file/);
  await refuses(ggufBytes([], [], { version: 1 }), /version 1 is not supported/);
  await refuses(ggufBytes([], [], { version: 0x03000000 }), /big-endian/);
  await refuses(whole.subarray(0, 60), /cut short|bytes are left/);
  await refuses(ggufBytes([["a", [U32, 1]], ["a", [U32, 1]]]), /key "a" appears twice/);
  await refuses(ggufBytes([["a", [BOOL, 2]]]), /"a" is 2, not a boolean/);
  const badType = ggufBytes([["a", [U32, 1]]]);
  badType[33] = 99;
  await refuses(badType, /unknown type 99/);
  const deep = (n: number): [number, unknown[]] => n === 0 ? [U32, []] : [ARRAY, [deep(n - 1)]];
  await refuses(ggufBytes([["a", [ARRAY, deep(6)]]]), /nested too deeply/);
  await refuses(ggufBytes([["general.alignment", [U32, 0]]]), /general.alignment is/);
});

Deno.test("parseGguf() refuses counts and lengths that the file cannot hold", async () => {
  await refuses(ggufBytes([], [], { counts: [2n ** 62n, 0n] }), /tensor count is 4611686018427387904/);
  await refuses(ggufBytes([], [], { counts: [2n ** 40n, 0n] }), /tensor table claims 1099511627776 items/);
  await refuses(ggufBytes([], [], { counts: [0n, 2n ** 40n] }), /metadata claims 1099511627776 items/);
  for (const type of [0, BOOL, STRING, ARRAY, U64]) {
    await refuses(ggufBytes([["a", [ARRAY, [type, [], 2n ** 40n]]]]), /"a" claims 1099511627776 items/);
  }
});

Deno.test("parseGguf() names the tensor when its entry lies", async () => {
  await refuses(ggufBytes([], [tensor, tensor]), /"a" appears twice/);
  await refuses(ggufBytes([], [{ ...tensor, type: 4 }]), /"a" has unknown type 4/);
  await refuses(ggufBytes([], [{ ...tensor, shape: [2, 31] }]), /does not divide into blocks of 32/);
  await refuses(ggufBytes([], [{ ...tensor, shape: [0, 32] }]), /impossible shape/);
  await refuses(ggufBytes([], [{ ...tensor, shape: [2n ** 30n, 2n ** 30n] }]), /impossible shape/);
  await refuses(ggufBytes([], [{ ...tensor, shape: [1, 1, 1, 1, 32] }]), /5 dimensions/);
  await refuses(ggufBytes([], [{ ...tensor, shape: [4, 32] }]), /ends at byte \d+ but the file has \d+/);
  await refuses(ggufBytes([], [{ ...tensor, offset: 4 }]), /not a multiple of 32/);
  await refuses(ggufBytes([], [tensor, { ...tensor, name: "b", offset: 32 }]), /"a" and "b" overlap/);
});

Deno.test("dequantise() equals gguf-py bit for bit for every quantised type", () => {
  const { types } = fixtureJson("quants.json");
  for (const [name, { blocks, bits }] of Object.entries<{ blocks: string; bits: number[] }>(types)) {
    const values = dequantise(name, Uint8Array.fromHex(blocks));
    assert.deepEqual(new Uint32Array(values.buffer), Uint32Array.from(bits), name);
  }
  assert.deepEqual(Object.keys(types).sort(), ["Q4_0", "Q4_1", "Q8_0"]);
});

Deno.test("parseGguf() reads what gguf-py wrote", async () => {
  const source = await openFile(fixture("tiny-gpt2.gguf"));
  const { tensors, metadata } = await parseGguf(source);
  assert.equal(metadata.get("general.architecture"), "gpt2");
  assert.equal(tensors.size, 28);
  assert.deepEqual(tensors.get("blk.1.attn_qkv.weight")!.shape, [96, 32]);
  source.close();
});
