import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import type { Gpu } from "../../../engine/gpu/device.ts";
import { SecondMoment } from "../../../engine/linalg/moment.ts";
import {
  type NullSpace,
  nullSpace,
  type NullSpaceOptions,
  packNullSpace,
  unpackNullSpace,
} from "../../../engine/linalg/null_space.ts";
import { packArrays } from "../../../engine/linalg/pack.ts";
import { makeProjector, Projector } from "../../../engine/linalg/projector.ts";
import { createTensor, freeTensor } from "../../../engine/tensor/tensor.ts";
import { normals } from "../ops/_reference.ts";
import { column, DEVICES, norm, split, symmetric, upload } from "./_spd.ts";
import { realStatistics } from "./_real.ts";

const ROUTES = [["native", "host"], ["native", "f64"], ["single", "compensated"]] as const;

/** The lower triangle of a dense matrix, row by row. */
function pack(a: Float64Array, n: number): Float64Array {
  return Float64Array.from({ length: n * (n + 1) / 2 }, (_, at) => {
    const i = Math.floor((Math.sqrt(8 * at + 1) - 1) / 2);
    return a[i * n + at - i * (i + 1) / 2];
  });
}

/** P in f64 from the basis of a space. */
function projection({ n, basis, spans }: NullSpace): Float64Array {
  const P = new Float64Array(n * n);
  const sign = spans === "kept" ? 1 : -1;
  if (sign < 0) { for (let i = 0; i < n; i++) P[i * n + i] = 1; }
  for (let r = 0; r < basis.length; r += n) {
    for (let i = 0; i < n; i++) {
      const v = sign * basis[r + i];
      for (let j = 0; j < n; j++) P[i * n + j] += v * basis[r + j];
    }
  }
  return P;
}

/** Spectra in the manner of key statistics: a few large eigenvalues, many near the threshold, some at zero. */
const SPECTRA: Record<string, (i: number, n: number) => number> = {
  "condition 1e4": (i, n) => 10 * 1e4 ** (-i / Math.max(1, n - 1)),
  "condition 1e9": (i, n) => 10 * 1e9 ** (-i / Math.max(1, n - 1)),
  "rank of a third": (i, n) => i < n / 3 ? 1 + i / n : 0,
  "a cluster on either side": (i, n) => i < n / 2 ? 0.021 : 0.019,
};

for (const [device, route] of ROUTES) {
  Deno.test(`nullSpace() splits a known spectrum by ${route}`, async () => {
    const gpu = await DEVICES[device]();
    for (const [s, n] of [1, 2, 3, 63, 65, 130, 193, 257].entries()) {
      const names = Object.keys(SPECTRA);
      const name = names[s % names.length];
      const exact = Float64Array.from({ length: n }, (_, i) => SPECTRA[name](i, n)).sort();
      const a = symmetric(n, SPECTRA[name]);
      const space = await nullSpace(gpu, { n, lower: pack(a, n) }, { name: "C", threshold: 0.02, route });
      strictEqual(space.rank, exact.filter((v) => v < 0.02).length, `${name} n=${n}`);
      strictEqual(space.basis.length, Math.min(space.rank, n - space.rank) * n);
      strictEqual(space.near.length, Math.min(6, space.rank) + Math.min(6, n - space.rank));
      // Backward stable: eigenvalues to a few √n roundings of the largest, allowed n of them.
      const unit = route === "compensated" ? 2 ** -44 : 2 ** -52;
      const top = exact[n - 1];
      space.eigenvalues.forEach((v, i) => {
        ok(
          Math.abs(v - exact[i]) <= 2 * n * unit * top,
          `${name} n=${n}: eigenvalue ${i} is ${v - exact[i]} off`,
        );
      });
      const P = projection(space);
      // C seen through P has the trace of the kept eigenvalues and no other.
      const kept = exact.reduce((sum, v) => v < 0.02 ? sum + v : sum, 0);
      const seen = P.reduce((sum, v, i) => sum + v * a[i], 0);
      ok(Math.abs(seen - kept) <= 2 * n * n * unit * top, `${name} n=${n}: tr PC is ${seen - kept} off`);
      let square = 0, commute = 0;
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n; j++) {
          let pp = -P[i * n + j], pc = 0;
          for (let k = 0; k < n; k++) {
            pp += P[i * n + k] * P[k * n + j];
            pc += P[i * n + k] * a[k * n + j] - a[i * n + k] * P[k * n + j];
          }
          square = Math.max(square, Math.abs(pp));
          commute = Math.max(commute, Math.abs(pc));
        }
      }
      ok(square <= 2 * n * unit, `${name} n=${n}: P² − P has ${square}`);
      ok(commute <= 4 * n * unit * top, `${name} n=${n}: PC − CP has ${commute}`);
    }
  });

  Deno.test(`Projector.apply() and dense() are the same P by ${route}`, async () => {
    const gpu = await DEVICES[device]();
    const n = 130, m = 5;
    for (const threshold of [1e-2, 5]) {
      const lower = pack(symmetric(n, SPECTRA["condition 1e4"]), n);
      const space = await nullSpace(gpu, { n, lower }, { name: "C", threshold, route });
      strictEqual(space.spans, threshold === 5 ? "removed" : "kept");
      // Chunks of 30 rows, so that the basis takes several.
      for (const options of [{}, { maxShardBytes: 30 * 192 * 8 }]) {
        using projector = new Projector(gpu, space, options);
        const exact = projection(space);
        const P = await projector.dense();
        // One rounding to f32 of elements of size 1 at most.
        P.forEach((v, i) => ok(Math.abs(v - exact[i]) <= 2 ** -24));
        for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) strictEqual(P[i * n + j], P[j * n + i]);
        const keys = normals(m * n, 31);
        const got = await projector.apply(keys, m);
        for (let c = 0; c < m; c++) {
          const k = column(keys, n, c);
          const want = Float64Array.from(
            { length: n },
            (_, i) => k.reduce((s, v, j) => s + exact[i * n + j] * v, 0),
          );
          const unit = route === "compensated" ? 2 ** -44 : 2 ** -52;
          ok(norm(column(got, n, c), want) <= n * unit * norm(k));
        }
      }
    }
  });
}

Deno.test("nullSpace() gives the same bits twice, and when the matrix is in several panels", async () => {
  const n = 257;
  const lower = pack(symmetric(n, SPECTRA["condition 1e9"]), n);
  for (const [device, route] of [["native", "f64"], ["single", "compensated"]] as const) {
    const gpu = await DEVICES[device]();
    const options: NullSpaceOptions = { name: "C", threshold: 1e-4, route };
    const one = await nullSpace(gpu, { n, lower }, options);
    deepStrictEqual(await nullSpace(gpu, { n, lower }, options), one);
    // One row of tiles a panel, the fewest rows that n = 257 allows; as n = 16,384 on a small device.
    const many = await nullSpace(gpu, { n, lower }, { ...options, maxShardBytes: 64 * 320 * 8 });
    deepStrictEqual(many, one);
    await rejects(
      nullSpace(gpu, { n, lower }, { ...options, maxShardBytes: 1000 }),
      /Cannot store C \[257, 257\]: 64 rows of it have 32768 bytes, the limit is 1000/,
    );
  }
});

Deno.test("nullSpace() takes tensors and second moments, and frees everything", async () => {
  const n = 70;
  const gpu = await DEVICES.native();
  const held = () => gpu.memory.owners().find(([owner]) => owner === "linalg")?.[1] ?? 0;
  const { hi, sum } = split(symmetric(n, SPECTRA["condition 1e4"]));
  const lower = Float32Array.from(pack(sum, n));
  const options = { name: "C", threshold: 0.02 };
  const packed = await nullSpace(gpu, { n, lower }, options);
  strictEqual(packed.route, "f64");
  const C = upload(gpu, hi, n);
  const before = held();
  const seen: number[] = [];
  const ofTensor = await nullSpace(gpu, C, { ...options, onProgress: (done) => seen.push(done) });
  deepStrictEqual(ofTensor, packed);
  deepStrictEqual(seen, [64, 70]);
  strictEqual(held(), before);
  freeTensor(gpu, C);
  using moment = new SecondMoment(gpu, "C", n);
  moment.load({ count: 4, lower: Float64Array.from(lower, (v) => 4 * v) });
  deepStrictEqual(await nullSpace(gpu, moment, options), packed);
  const made = await makeProjector(gpu, moment, options);
  using projector = new Projector(gpu, packed);
  deepStrictEqual(made, {
    ...{ n, threshold: 0.02, rank: packed.rank, near: [...packed.near] },
    lower: await projector.lower(),
  });
});

Deno.test("unpackNullSpace() restores what was packed, and refuses other bytes", async () => {
  const gpu = await DEVICES.native();
  const n = 9;
  const lower = pack(symmetric(n, SPECTRA["condition 1e4"]), n);
  for (const threshold of [1e-2, 1, 100]) {
    const space = await nullSpace(gpu, { n, lower }, { name: "C", threshold });
    const bytes = packNullSpace(space);
    deepStrictEqual(unpackNullSpace(bytes), space);
    throws(() => unpackNullSpace(bytes.subarray(0, bytes.length - 8)), /null space from .* is cut short/);
    throws(() => unpackNullSpace(bytes.subarray(0, 3)), /from 3 bytes: the header is cut short/);
  }
  const other = packArrays("other", {}, {});
  throws(() => unpackNullSpace(other), /Cannot read a null space from .*: its format is other/);
  const small = packArrays("emend null space 1", { name: "C", n: 2, rank: 0, spans: "kept" }, {});
  throws(() => unpackNullSpace(small), /Cannot restore the null space of C: its arrays are not of size 2/);
});

Deno.test("nullSpace() refuses what it cannot split", async () => {
  const gpu = await DEVICES.single();
  const lower = Float64Array.of(1, 0, 1);
  const with_ = (more: Partial<NullSpaceOptions>) =>
    nullSpace(gpu, { n: 2, lower }, { name: "C", threshold: 1, ...more });
  await rejects(with_({ threshold: -1 }), /Cannot split C at the threshold -1/);
  await rejects(with_({ threshold: NaN }), /Cannot split C at the threshold NaN/);
  await rejects(with_({ route: "f64" }), /Cannot compute in f64: the device has no f64\nUse the route/);
  await rejects(
    nullSpace(gpu, { n: 3, lower }, { name: "C", threshold: 1 }),
    /its lower triangle has 6 numbers, not 3/,
  );
  await rejects(
    nullSpace(gpu, { n: 2, lower: Float64Array.of(1, NaN, 1) }, { name: "C", threshold: 1 }),
    /Cannot decompose C \[2, 2\]: element 1 of its triangle is NaN/,
  );
  const wide = createTensor(gpu, "W", [2, 3]);
  await rejects(
    nullSpace(gpu, wide, { name: "W", threshold: 1 }),
    /Cannot split W \[2, 3\]: it is not square/,
  );
  freeTensor(gpu, wide);
  // All eigenvalues on one side: the projector is the identity or zero.
  for (const [threshold, value] of [[2, 1], [0.5, 0]]) {
    const space = await with_({ threshold });
    strictEqual(space.gap, Infinity);
    using projector = new Projector(gpu, space);
    deepStrictEqual([...await projector.dense()], [value, 0, 0, value]);
    deepStrictEqual([...await projector.apply(Float64Array.of(3, 4))], [3 * value, 4 * value]);
  }
});

Deno.test("nullSpace() works on the host when the device breaks compensated sums", async () => {
  const gpu: Gpu = await DEVICES.single();
  const n = 70;
  const trusted = gpu.numerics;
  gpu.numerics = { ...trusted, compensated: false };
  try {
    const lower = pack(symmetric(n, SPECTRA["condition 1e4"]), n);
    const space = await nullSpace(gpu, { n, lower }, { name: "C", threshold: 0.02 });
    strictEqual(space.route, "host");
    using projector = new Projector(gpu, space);
    const exact = projection(space);
    const P = await projector.dense();
    P.forEach((v, i) => ok(Math.abs(v - exact[i]) <= 2 ** -24));
    const first = await projector.apply(Float64Array.from({ length: n }, (_, i) => i === 0 ? 1 : 0));
    first.forEach((v, i) => ok(Math.abs(v - exact[i]) <= n * 2 ** -52));
    await rejects(
      nullSpace(gpu, { n, lower }, { name: "C", threshold: 0.02, route: "compensated" }),
      /compiler breaks error-free transformations/,
    );
  } finally {
    gpu.numerics = trusted;
  }
});

Deno.test("nullSpace() agrees between routes on real key statistics", async () => {
  const real = await realStatistics();
  if (!real) return;
  // The leading block keeps this quick; bench/cholesky.ts and docs/performance.md have whole matrices.
  const n = Math.min(real.n, 512);
  const lower = real.lower.slice(0, n * (n + 1) / 2);
  const spaces: NullSpace[] = [];
  for (const [device, route] of ROUTES) {
    const gpu = await DEVICES[device]();
    spaces.push(await nullSpace(gpu, { n, lower }, { name: real.name, threshold: 0.02, route }));
  }
  const [host, ...others] = spaces;
  console.log(
    `${real.name}, leading ${n}: eigenvalues ${host.eigenvalues[0].toExponential(2)} to ` +
      `${host.eigenvalues[n - 1].toExponential(2)}, rank ${host.rank}, gap ${host.gap.toExponential(1)}`,
  );
  const expected = projection(host);
  for (const space of others) {
    strictEqual(space.rank, host.rank);
    const apart = norm(projection(space), expected);
    console.log(
      `  ${space.route}: ‖P − P host‖ = ${apart.toExponential(1)}, bound ${space.error.toExponential(1)}`,
    );
    // Each is off by its own share; the Frobenius norm is at most √(2·rank) times the spectral one.
    ok(apart <= Math.sqrt(2 * Math.min(space.rank, n - space.rank)) * (space.error + host.error));
  }
});
