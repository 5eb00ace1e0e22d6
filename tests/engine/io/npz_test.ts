import assert from "node:assert/strict";
import { InputError } from "../../../engine/io/errors.ts";
import { openNpz } from "../../../engine/io/npz.ts";
import { fromBytes, openFile } from "../../../engine/io/source.ts";
import { fixture, fixtureJson } from "./_data.ts";

for (const file of ["peer.npz", "peer-deflated.npz"]) {
  Deno.test(`openNpz() reads NumPy's arrays from ${file}`, async () => {
    const source = await openFile(fixture(file));
    const npz = await openNpz(source);
    const expected: Record<string, { shape: number[]; values: string[] }> = fixtureJson("peer.json").npz;
    for (const [name, { shape, values }] of Object.entries(expected)) {
      const array = await npz.read(name);
      assert.deepEqual(array.shape, shape, name);
      assert.deepEqual(Array.from(array.data as ArrayLike<number>, Number), values.map(Number), name);
    }
    assert.equal((await npz.read("mom2.count")).data[0], 123456789012345n);
    await assert.rejects(npz.read("nothing"), /No array "nothing" in .*; it has mom2\.mom2, /);
    await assert.rejects(npz.read("constructor"), /its type is "<U19", not f4, f8 or i8/);
    await assert.rejects(npz.read("half"), /its type is "<f2"/);
    await assert.rejects(npz.read("big"), /its type is ">f4"/);
    await assert.rejects(npz.read("fortran"), /it is in Fortran order/);
    source.close();
  });

  Deno.test(`openNpz() either reads or throws InputError when ${file} is damaged or cut`, async () => {
    const whole = await Deno.readFile(fixture(file));
    const tryRead = async (bytes: Uint8Array) => {
      try {
        const npz = await openNpz(fromBytes("x.npz", bytes));
        for (const name of npz.names) {
          await npz.read(name).catch((error) => assert(error instanceof InputError));
        }
      } catch (error) {
        assert(error instanceof InputError, String(error));
      }
    };
    for (let cut = 0; cut < whole.length; cut += 97) await tryRead(whole.slice(0, cut));
    for (let at = 0; at < whole.length; at += whole.length > 5000 ? 13 : 3) {
      const bytes = whole.slice();
      bytes[at] ^= 0xff;
      await tryRead(bytes);
    }
  });
}

Deno.test("openNpz() notices a changed byte by the checksum", async () => {
  const bytes = await Deno.readFile(fixture("peer.npz"));
  const data = await openNpz(fromBytes("x.npz", bytes)).then((npz) => npz.read("mean"));
  const pattern = new Uint8Array(data.data.buffer).toHex();
  const at = bytes.toHex().indexOf(pattern) / 2;
  bytes[at] ^= 1;
  const npz = await openNpz(fromBytes("x.npz", bytes));
  await assert.rejects(npz.read("mean"), /"mean" does not match its checksum/);
});

Deno.test("openNpz() refuses a claim that deflate could not keep", async () => {
  const bytes = await Deno.readFile(fixture("peer-deflated.npz"));
  const view = new DataView(bytes.buffer);
  let at = 0;
  while (view.getUint32(at, true) !== 0x02014b50) at++;
  view.setUint32(at + 24, 0xfffffff0, true);
  await assert.rejects(openNpz(fromBytes("x.npz", bytes)), /claims 4294967280 bytes from \d+/);
});
