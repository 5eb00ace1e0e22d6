/**
 * Statistics that ROME's code (and MEMIT's, EasyEdit's) cached: an .npz with `mom2.mom2`, the sum of k kᵀ in a
 * full square, and `mom2.count`, the tokens (guide section 2; util/runningstats.py of the ROME release).
 */
import { createHash } from "node:crypto";
import { basename } from "node:path";
import { InputError } from "../engine/io/errors.ts";
import { type NpzArray, openNpz } from "../engine/io/npz.ts";
import { type ByteSource, openFile } from "../engine/io/source.ts";
import type { LayerStatistics } from "./statistics.ts";

/** What the file is to fit; nothing in it says of which model it is, so the caller vouches for that. */
export interface ImportTarget {
  modelHash: string;
  modelName: string;
  layer: number;
  /** Key width F of the layer. */
  width: number;
  /** Tokens of a document at most: the model's context, as in the reference. */
  maxLength: number;
}

/** Elements (i, j) and (j, i) of a sum of products differ by rounding, at most this share of their size. */
const ASYMMETRY = 1e-3;

/**
 * Reads C of one layer.
 * @throws {InputError} when the file is something else or damaged, of another width or dtype, when its name
 *   speaks of another layer, or when its square is no second moment: not finite, not symmetric, a negative
 *   diagonal
 */
export async function importStatistics(path: string, target: ImportTarget): Promise<LayerStatistics> {
  const { layer, width } = target;
  const named = /\.(?:h|layers)\.(\d+)\./.exec(basename(path))?.[1];
  if (named !== undefined && Number(named) !== layer) {
    throw new InputError(`${path} does not fit: its name is of layer ${named}, layer ${layer} is wanted`);
  }
  const source = await openFile(path);
  try {
    const npz = await openNpz(source);
    const lacking = ["mom2.mom2", "mom2.count"].find((name) => !npz.names.includes(name));
    if (lacking) {
      throw new InputError(`${path} is not a cached second moment: it has no array "${lacking}"`, {
        hint: `Its arrays are ${npz.names.join(", ")}`,
      });
    }
    const square = await npz.read("mom2.mom2");
    if (square.shape.length !== 2 || square.shape.some((size) => size !== width)) {
      throw new InputError(
        `${path} does not fit: its square is [${square.shape}], keys of ${target.modelName} have ${width} numbers`,
      );
    }
    const tokens = Number((await npz.read("mom2.count")).data[0]);
    if (!(tokens >= 1)) throw new InputError(`${path} has counted ${tokens} tokens`);
    // Absent, or NaN for "all": a token a document is the most there can be.
    const sample = npz.names.includes("sample_size") ? (await npz.read("sample_size")).data[0] : NaN;
    const documents = Number(sample) >= 1 ? Number(sample) : tokens;
    return {
      origin: {
        modelHash: target.modelHash,
        layer,
        width,
        corpusHash: await hashOf(source),
        corpusName: basename(path),
        tokens,
        documents,
        maxLength: target.maxLength,
        complete: true,
        imported: basename(path),
      },
      lower: meanOf(path, square, tokens),
    };
  } finally {
    source.close();
  }
}

/** The lower triangle of the square over the tokens, each element the mean of its two places. */
function meanOf(path: string, { shape: [n], data }: NpzArray, tokens: number): Float32Array {
  const S = data as Float32Array | Float64Array;
  const bad = (i: number, j: number, what: string) =>
    new InputError(`${path} holds no second moment: element (${i}, ${j}) ${what}`, {
      hint:
        "The file is damaged, or was made in half precision: collect the statistics with the stats command",
    });
  const lower = new Float32Array(n * (n + 1) / 2);
  for (let i = 0, at = 0; i < n; i++) {
    if (!(S[i * n + i] >= 0 && S[i * n + i] < Infinity)) throw bad(i, i, `is ${S[i * n + i]}`);
    for (let j = 0; j <= i; j++, at++) {
      const a = S[i * n + j], b = S[j * n + i];
      // |S_ij|² ≤ S_ii·S_jj, and what is left of a sum near zero is rounding of that size.
      const size = Math.sqrt(S[i * n + i] * S[j * n + j]);
      if (!(Math.abs(a - b) <= ASYMMETRY * size)) throw bad(i, j, `is ${a}, (${j}, ${i}) is ${b}`);
      lower[at] = (a + b) / 2 / tokens;
    }
  }
  return lower;
}

/** SHA-256 of the file: it stands for the corpus, which the file does not tell. */
async function hashOf(source: ByteSource): Promise<string> {
  const sha = createHash("sha256");
  const piece = 8 * 2 ** 20;
  for (let at = 0; at < source.size; at += piece) {
    sha.update(await source.read(at, Math.min(piece, source.size - at)));
  }
  return sha.digest("hex");
}
