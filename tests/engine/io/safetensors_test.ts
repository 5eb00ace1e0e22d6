import assert from "node:assert/strict";
import { join } from "node:path";
import { InputError } from "../../../engine/io/errors.ts";
import { parseSafetensors, writeSafetensors } from "../../../engine/io/safetensors.ts";
import { fromBytes, openFile } from "../../../engine/io/source.ts";
import { fixture, fixtureJson, inFolder, safetensorsBytes } from "./_data.ts";

const f32 = (shape: number[], begin: number, end: number) => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});

/** Parses bytes that must be refused, and checks the message. */
async function refuses(bytes: Uint8Array, message: RegExp): Promise<void> {
  await assert.rejects(parseSafetensors(fromBytes("x.safetensors", bytes)), (error) => {
    assert(error instanceof InputError, String(error));
    assert.match(error.message, message);
    assert.match(error.message, /^[A-Z].*[^.]$/);
    return true;
  });
}

Deno.test("parseSafetensors() reads every tensor when the safetensors library wrote the file", async () => {
  const source = await openFile(fixture("peer.safetensors"));
  const file = await parseSafetensors(source);
  const expected = fixtureJson("peer.json").safetensors;
  assert.deepEqual(new Set(file.entries.keys()), new Set(Object.keys(expected)));
  for (const [name, entry] of file.entries) {
    assert.deepEqual(entry.shape, expected[name].shape);
    assert.equal((await file.read(entry)).toHex(), expected[name].hex);
  }
  assert.deepEqual(file.metadata, { format: "pt", note: "naïve" });
  const { dtype } = file.entries.get("bf16")!;
  assert.equal(dtype, "BF16");
  assert.equal((await file.read(file.entries.get("f32")!, 4, 8)).toHex(), expected.f32.hex.slice(8, 24));
  await assert.rejects(file.read(file.entries.get("f32")!, 56, 8), /Cannot read bytes 56 to 64/);
  source.close();
});

Deno.test("parseSafetensors() names the problem when the header is malformed", async () => {
  await refuses(new Uint8Array(7), /7 bytes is too short/);
  await refuses(safetensorsBytes("{}", 0, 3n), /claims a header of 3 bytes but only 2 follow/);
  await refuses(
    safetensorsBytes("{}", 0, 1n << 63n),
    /claims a header of 9223372036854775808 bytes but only 2/,
  );
  await refuses(safetensorsBytes("[]"), /does not start with "\{"/);
  await refuses(safetensorsBytes(" {}"), /does not start with "\{"/);
  await refuses(safetensorsBytes("{]"), /Cannot read the safetensors header/);
  await refuses(safetensorsBytes({ a: 1 }), /"a" is not an object/);
  await refuses(safetensorsBytes({ __metadata__: { a: 1 } }), /__metadata__ value "a" is not a string/);
  const invalid = safetensorsBytes({ a: f32([1], 0, 4) }, 4);
  invalid[10] = 0xff;
  await refuses(invalid, /not UTF-8/);
});

Deno.test("parseSafetensors() names the tensor when sizes lie", async () => {
  await refuses(
    safetensorsBytes({ a: { ...f32([1], 0, 4), dtype: "F33" } }, 4),
    /"a" has unknown dtype "F33"/,
  );
  await refuses(
    safetensorsBytes({ a: { ...f32([1], 0, 4), dtype: "toString" } }, 4),
    /unknown dtype "toString"/,
  );
  await refuses(
    safetensorsBytes({ a: f32([2], 0, 4) }, 4),
    /F32 \[2\], 8 bytes, but its data_offsets span 4/,
  );
  await refuses(safetensorsBytes({ a: f32([-1], 0, 4) }, 4), /bad shape \[-1\]/);
  await refuses(safetensorsBytes({ a: f32([1.5], 0, 6) }, 6), /bad shape/);
  await refuses(safetensorsBytes({ a: f32([2 ** 40, 2 ** 40], 0, 4) }, 4), /too large for any file/);
  await refuses(safetensorsBytes({ a: f32([1], 4, 0) }, 4), /bad data_offsets/);
  await refuses(safetensorsBytes({ a: f32([1], 0, 4) }, 3), /ends at byte \d+ but the file has/);
});

Deno.test("parseSafetensors() refuses overlaps, gaps and leftovers", async () => {
  await refuses(safetensorsBytes({ a: f32([2], 0, 8), b: f32([1], 4, 8) }, 8), /"a" and "b" overlap/);
  await refuses(safetensorsBytes({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), /4 bytes before tensor "b"/);
  await refuses(safetensorsBytes({ a: f32([1], 4, 8) }, 8), /4 bytes before tensor "a"/);
  await refuses(safetensorsBytes({ a: f32([1], 0, 4) }, 5), /1 bytes after the last tensor/);
});

Deno.test("parseSafetensors() refuses a key that appears twice at any depth", async () => {
  const entry = JSON.stringify(f32([1], 0, 4));
  await refuses(safetensorsBytes(`{"a":${entry},"a":${entry}}`, 4), /the key "a" appears twice/);
  await refuses(
    safetensorsBytes(`{"a":${entry},"\\u0061"${" ".repeat(100)}:${entry}}`, 4),
    /"a" appears twice/,
  );
  await refuses(safetensorsBytes(`{"a":${entry.slice(0, -1)},"dtype":"F32"}}`, 4), /"dtype" appears twice/);
  await refuses(safetensorsBytes(`{"__metadata__":{"x":"1","x":"2"},"a":${entry}}`, 4), /"x" appears twice/);
});

Deno.test("parseSafetensors() accepts what only looks like a repeated key", async () => {
  const header = `{"__metadata__":{"a":"a\\"","b":"\\\\"},"a":${JSON.stringify(f32([1], 0, 4))}}  `;
  const file = await parseSafetensors(fromBytes("x", safetensorsBytes(header, 4)));
  assert.deepEqual([...file.entries.keys()], ["a"]);
  assert.deepEqual(file.metadata, { a: 'a"', b: "\\" });
});

Deno.test("writeSafetensors() round-trips when data arrives in pieces", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "sub", "model.safetensors");
    const bytes = Uint8Array.from({ length: 24 }, (_, i) => i);
    await writeSafetensors(path, [
      { name: "b", dtype: "F32", shape: [2, 3], data: () => [bytes.subarray(0, 5), bytes.subarray(5)] },
      {
        name: "a",
        dtype: "BF16",
        shape: [2],
        data: async function* () {
          yield await Promise.resolve(bytes.subarray(0, 4));
        },
      },
      { name: "none", dtype: "I64", shape: [0], data: () => [] },
    ], { format: "pt" });
    const source = await openFile(path);
    const file = await parseSafetensors(source);
    assert.deepEqual(file.metadata, { format: "pt" });
    assert.deepEqual(await file.read(file.entries.get("b")!), bytes);
    assert.deepEqual(await file.read(file.entries.get("a")!), bytes.subarray(0, 4));
    assert.equal(file.entries.get("b")!.offset % 8, 0);
    source.close();
  });
});

Deno.test("writeSafetensors() leaves nothing behind and keeps the old file when it fails", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "model.safetensors");
    await Deno.writeTextFile(path, "old");
    const tensor = (data: () => Iterable<Uint8Array>) => ({
      name: "a",
      dtype: "F32" as const,
      shape: [2],
      data,
    });
    await assert.rejects(
      writeSafetensors(path, [tensor(() => [new Uint8Array(7)])]),
      /needs 8 bytes but got 7/,
    );
    await assert.rejects(
      writeSafetensors(path, [tensor(() => [new Uint8Array(9)])]),
      /needs 8 bytes but got 9/,
    );
    await assert.rejects(
      writeSafetensors(path, [tensor(() => {
        throw new Error("disk on fire");
      })]),
      /disk on fire/,
    );
    const good = tensor(() => [new Uint8Array(8)]);
    await assert.rejects(writeSafetensors(path, [good, good]), /two tensors named a/);
    assert.deepEqual([...Deno.readDirSync(folder)].map((entry) => entry.name), ["model.safetensors"]);
    assert.equal(await Deno.readTextFile(path), "old");
  });
});
