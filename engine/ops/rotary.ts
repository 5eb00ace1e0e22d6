/** Rotary position embedding (Su 2021), in the two layouts and with the scalings of released models. */
import { GpuError } from "../gpu/errors.ts";
import type { Gpu } from "../gpu/device.ts";
import { rotaryTurn } from "../kernels/rotary.ts";
import { elementGrid } from "../kernels/elementwise.ts";
import { describe, matrixOf, storageOf, type Tensor } from "../tensor/tensor.ts";
import { fromHost } from "../tensor/transfer.ts";
import { type Ctx, gradTarget, temp } from "./context.ts";

/** How a model stretches its positions beyond the ones it was trained on. */
export type RotaryScaling =
  | { kind: "linear"; factor: number }
  | {
    kind: "llama3";
    factor: number;
    lowFreqFactor: number;
    highFreqFactor: number;
    /** Positions of the original training. */
    originalMaxPositions: number;
  };

/** What angle belongs to which element. */
export interface RotaryTableOptions {
  headDim: number;
  /** Leading elements of a head that turn; even. */
  rotaryDim: number;
  /** Base of the wavelengths, 10,000 in the paper. */
  theta: number;
  scaling?: RotaryScaling;
  maxPositions: number;
}

/**
 * Cosines and sines [maxPositions, rotaryDim/2, 2] on the device, owned by the caller. Angles are computed
 * as `transformers` does: the frequencies and their products with positions are rounded to f32.
 * @throws {GpuError} for an odd or too large `rotaryDim`
 */
export function rotaryTable(gpu: Gpu, options: RotaryTableOptions): Tensor {
  const { headDim, rotaryDim, maxPositions } = options;
  if (rotaryDim % 2 !== 0 || rotaryDim > headDim) {
    throw new GpuError(
      `Cannot rotate ${rotaryDim} elements of heads of ${headDim}: an even part of a head fits`,
    );
  }
  const half = rotaryDim / 2;
  const frequencies = rotaryFrequencies(options);
  const table = new Float32Array(maxPositions * rotaryDim);
  for (let position = 0; position < maxPositions; position++) {
    for (let j = 0; j < half; j++) {
      const angle = Math.fround(frequencies[j] * position);
      table[2 * (position * half + j)] = Math.cos(angle);
      table[2 * (position * half + j) + 1] = Math.sin(angle);
    }
  }
  return fromHost(gpu, "rotary table", [maxPositions, half, 2], table, { owner: "weights" });
}

/** Radians a position for each pair, [rotaryDim/2], in f32. */
export function rotaryFrequencies({ rotaryDim, theta, scaling }: RotaryTableOptions): Float32Array {
  const plain = Float32Array.from(
    { length: rotaryDim / 2 },
    (_, j) => 1 / Math.fround(theta ** Math.fround(2 * j / rotaryDim)),
  );
  if (!scaling) return plain;
  const { factor } = scaling;
  if (scaling.kind === "linear") return plain.map((f) => f / factor);
  const { lowFreqFactor: low, highFreqFactor: high, originalMaxPositions: original } = scaling;
  return plain.map((f) => {
    const wavelength = Math.fround(2 * Math.PI / f);
    if (wavelength < original / high) return f;
    if (wavelength > original / low) return f / factor;
    const smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * f / factor + smooth * f;
  });
}

/** How rows split into heads. */
export interface RotaryShape {
  heads: number;
  headDim: number;
  rotaryDim: number;
  /** Pairs are neighbours (GPT-J) instead of half a rotation apart (LLaMA, GPT-NeoX). */
  interleaved?: boolean;
}

/**
 * Turns queries or keys by their positions; x [rows, heads·headDim], table from {@link rotaryTable},
 * positions u32 [rows], each below the table's length → a new tensor like x. Gradient to x: the inverse
 * rotation. Nothing kept for backward but positions and table.
 * @throws {GpuError} when the sizes do not fit
 */
export function rotary(ctx: Ctx, x: Tensor, table: Tensor, positions: Tensor, shape: RotaryShape): Tensor {
  const { heads, headDim, rotaryDim, interleaved = false } = shape;
  const { rows, cols } = matrixOf(x);
  if (cols !== heads * headDim || headDim % 2 !== 0 || positions.shape[0] !== rows) {
    throw new GpuError(
      `Cannot rotate ${describe(x)} as ${heads} heads of ${headDim} by ${describe(positions)}`,
      "A row is heads·headDim wide, headDim is even, and there is one position a row",
    );
  }
  if (table.shape[1] * 2 !== rotaryDim) {
    throw new GpuError(`Cannot rotate ${rotaryDim} elements of a head by ${describe(table)}`);
  }
  const turn = (from: Tensor, to: Tensor, direction: number, ACC: boolean) => {
    const pairs = rows * heads * headDim / 2;
    ctx.r.dispatch(rotaryTurn, {
      variant: { INTERLEAVED: interleaved, ACC },
      bind: {
        x: storageOf(from),
        table: storageOf(table),
        positions: storageOf(positions),
        y: storageOf(to),
      },
      params: { pairs, heads, head_dim: headDim, rotary_dim: rotaryDim, direction },
      grid: elementGrid(pairs),
    });
  };
  const y = temp(ctx, `rotated ${x.label}`, x.shape);
  turn(x, y, 1, false);
  if (ctx.tape?.needs(x)) {
    ctx.tape.push(y, () => {
      const dy = ctx.tape!.grad(y);
      if (!dy) return;
      const { grad, accumulate } = gradTarget(ctx, x);
      turn(dy, grad, -1, accumulate);
    });
  }
  return y;
}
