/**
 * Loads a checkpoint onto the device. Weights stream through host memory piece by piece and stay as stored;
 * vectors (norms, biases) become f32. Shapes, missing tensors and NaN are refused by name.
 */
import type { Gpu } from "../gpu/device.ts";
import { type Checkpoint, openCheckpoint, type WeightInfo } from "../io/checkpoint.ts";
import { type ModelConfig, parseConfig, type RopeScaling } from "../io/config.ts";
import { toFloat32 } from "../io/convert.ts";
import { findNonFinite } from "../io/dtypes.ts";
import { InputError } from "../io/errors.ts";
import type { Weight } from "../ops/linear.ts";
import { type RotaryScaling, rotaryTable } from "../ops/rotary.ts";
import { createTensor, type Dtype, freeTensor, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { fromHost, writeBytes } from "../tensor/transfer.ts";
import { gpt2 } from "./gpt2.ts";
import { checkpointLayout, dimensions, type Entry, type LinearEntry } from "./layout.ts";
import { llama } from "./llama.ts";
import type { Family, Model } from "./model.ts";

const FAMILIES: Record<ModelConfig["type"], Family> = { gpt2, llama };
const DTYPES: Record<WeightInfo["dtype"], Dtype> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** A loaded model with the checkpoint it came from; edits are saved beside its files. */
export interface LoadedModel extends Model {
  readonly checkpoint: Checkpoint;
}

export interface LoadOptions {
  /** Called as bytes arrive on the device. */
  onProgress?: (bytes: number, total: number) => void;
  /** `false`: token ids only; asking for the tokenizer then is an error. */
  tokenizer?: boolean;
  /** Row shards of at most this many bytes; for tests of sharding. */
  maxShardBytes?: number;
  /** Under whose name the device's memory is counted, where several models share it. Default "weights". */
  owner?: string;
}

/**
 * Opens and loads a model.
 * @throws {InputError} unknown architecture, missing or misshapen tensor, non-finite weight, mismatched vocabulary
 */
export async function loadModel(gpu: Gpu, path: string, options: LoadOptions = {}): Promise<LoadedModel> {
  const checkpoint = await openCheckpoint(path);
  try {
    return await loadCheckpoint(gpu, checkpoint, options);
  } catch (error) {
    checkpoint.close();
    throw error;
  }
}

/** As {@link loadModel}, from an open checkpoint. */
export async function loadCheckpoint(
  gpu: Gpu,
  checkpoint: Checkpoint,
  options: LoadOptions = {},
): Promise<LoadedModel> {
  const config = parseConfig(checkpoint.config);
  const dims = dimensions(config);
  const entries = checkpointLayout(config);
  const tokenizer = options.tokenizer === false ? undefined : await checkpoint.tokenizer();
  if (tokenizer && tokenizer.vocabSize > dims.vocab) {
    throw new InputError(
      `The tokenizer of ${checkpoint.path} has ${tokenizer.vocabSize} tokens, the model's vocabulary ${dims.vocab}`,
    );
  }
  const { tensors, weights, keep, dispose } = await loadEntries(gpu, checkpoint, entries, options);
  if (!weights.has("head")) {
    const name = entries.find((e) => e.role === "embed")!.name;
    const matrix = tensors.get("embed")!;
    const tied = { layout: "out_in" as const, out: dims.vocab, in: dims.width, overlays: [] };
    weights.set("head", { role: "head", name, matrix, ...tied });
  }
  if (config.type === "llama") {
    const { headDim, maxPositions } = dims;
    const theta = config.ropeTheta, scaling = rotaryScaling(config.ropeScaling);
    tensors.set(
      "rotary",
      keep(rotaryTable(gpu, { headDim, rotaryDim: headDim, theta, scaling, maxPositions })),
    );
  }
  gpu.check();
  return {
    gpu,
    name: checkpoint.path,
    config,
    dims,
    family: FAMILIES[config.type],
    get tokenizer() {
      if (!tokenizer) throw new InputError(`${checkpoint.path} was loaded without its tokenizer`);
      return tokenizer;
    },
    weights,
    tensors,
    parts: [],
    checkpoint,
    [Symbol.dispose]() {
      dispose();
      checkpoint.close();
    },
  };
}

/** Tensors and maps of a checkpoint on the device. */
export interface Loaded {
  tensors: Map<string, Tensor>;
  weights: Map<string, Weight>;
  /** Makes a tensor go with the others. */
  keep: (t: Tensor) => Tensor;
  /** Frees all of them. */
  dispose: () => void;
}

/**
 * Loads what a layout lists.
 * @throws {InputError} missing or misshapen tensor, non-finite weight
 */
export async function loadEntries(
  gpu: Gpu,
  checkpoint: Checkpoint,
  entries: readonly Entry[],
  options: LoadOptions,
): Promise<Loaded> {
  const infos = entries.map((entry) => requireTensor(checkpoint, entry));
  const total = infos.reduce((n, i) => n + sizeOf(i.shape) * (i.dtype === "F32" ? 4 : 2), 0);
  let loaded = 0;
  const progress = (bytes: number) => options.onProgress?.(loaded += bytes, total);
  const tensors = new Map<string, Tensor>();
  const weights = new Map<string, Weight>();
  const owned: Tensor[] = [];
  const keep = (t: Tensor) => (owned.push(t), t);
  const dispose = () => owned.splice(0).forEach((t) => freeTensor(gpu, t));
  try {
    for (const [i, entry] of entries.entries()) {
      if (entry.kind === "vector") {
        tensors.set(entry.role, keep(await loadVector(gpu, checkpoint, infos[i], entry.role, options)));
        progress(sizeOf(infos[i].shape) * 4);
        continue;
      }
      const matrix = keep(await loadMatrix(gpu, checkpoint, infos[i], options, progress));
      if (entry.kind === "table") tensors.set(entry.role, matrix);
      else {
        const bias = entry.bias
          ? keep(
            await loadVector(
              gpu,
              checkpoint,
              requireVector(checkpoint, entry),
              `${entry.role}.bias`,
              options,
            ),
          )
          : undefined;
        const { role, name, out, in: inner, layout } = entry;
        weights.set(role, { role, name, matrix, layout, out, in: inner, bias, overlays: [] });
      }
    }
  } catch (error) {
    dispose();
    throw error;
  }
  return { tensors, weights, keep, dispose };
}

/** Dynamic scaling changes nothing within the original context, which is all that is run. */
function rotaryScaling(scaling: RopeScaling | undefined): RotaryScaling | undefined {
  if (!scaling || scaling.type === "dynamic") return undefined;
  if (scaling.type === "yarn") throw new InputError("Rotary positions scaled by YaRN are not supported");
  const { type: kind, ...rest } = scaling;
  return { kind, ...rest } as RotaryScaling;
}

function expectedShape(entry: Entry): number[] {
  if (entry.kind !== "linear") return entry.shape;
  return entry.layout === "out_in" ? [entry.out, entry.in] : [entry.in, entry.out];
}

function requireTensor(checkpoint: Checkpoint, entry: Entry): WeightInfo {
  return requireShape(checkpoint, entry.name, expectedShape(entry));
}

function requireVector(checkpoint: Checkpoint, entry: LinearEntry): WeightInfo {
  return requireShape(checkpoint, entry.bias!, [entry.out]);
}

function requireShape(checkpoint: Checkpoint, name: string, shape: number[]): WeightInfo {
  const info = findWeight(checkpoint, name);
  if (!info) throw new InputError(`${checkpoint.path} has no tensor "${name}"`);
  if (info.shape.join() !== shape.join()) {
    throw new InputError(
      `Tensor "${info.name}" of ${checkpoint.path} has the shape [${info.shape.join(", ")}]; ` +
        `the config asks for [${shape.join(", ")}]`,
    );
  }
  return info;
}

/** GPT-2 checkpoints come with and without the `transformer.` prefix, BERT's with and without theirs. */
function findWeight(checkpoint: Checkpoint, name: string): WeightInfo | undefined {
  return checkpoint.weights.get(name) ?? checkpoint.weights.get(name.replace(/^(transformer|bert)\./, ""));
}

async function loadMatrix(
  gpu: Gpu,
  checkpoint: Checkpoint,
  info: WeightInfo,
  options: LoadOptions,
  progress: (bytes: number) => void,
): Promise<Tensor> {
  const { maxShardBytes, owner = "weights" } = options;
  const t = createTensor(gpu, info.name, info.shape, {
    dtype: DTYPES[info.dtype],
    owner,
    maxShardBytes,
  });
  for await (const { byteOffset, bytes } of checkpoint.pieces(info.name)) {
    refuseNonFinite(checkpoint, info, bytes, byteOffset);
    writeBytes(gpu, t, byteOffset, bytes);
    progress(bytes.byteLength);
  }
  return t;
}

async function loadVector(
  gpu: Gpu,
  checkpoint: Checkpoint,
  info: WeightInfo,
  role: string,
  { owner = "weights" }: LoadOptions,
): Promise<Tensor> {
  const bytes = await checkpoint.rows(info.name, 0, info.shape[0]);
  refuseNonFinite(checkpoint, info, bytes, 0);
  return fromHost(gpu, role, info.shape, toFloat32(info.dtype, bytes), { owner });
}

function refuseNonFinite(
  checkpoint: Checkpoint,
  info: WeightInfo,
  bytes: Uint8Array,
  byteOffset: number,
): void {
  const bad = findNonFinite(info, bytes);
  if (bad < 0) return;
  const index = byteOffset / (info.dtype === "F32" ? 4 : 2) + bad;
  throw new InputError(
    `Tensor "${info.name}" of ${checkpoint.path} holds a value that is not finite, at element ${index}`,
    { hint: "The file is damaged, or was saved after a run that diverged" },
  );
}
