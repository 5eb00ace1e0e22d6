/** Placeholder type; see below. */
export interface Statistics {
  solve(layer: number, key: Float64Array): Promise<Float64Array>;
}
