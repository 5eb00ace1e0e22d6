/** `emend doctor`: is this machine ready, which routes does the engine take, and what to do if it is not. */
import { Command } from "npm:commander@15.1.0";
import { Gpu } from "../engine/gpu/device.ts";
import { GpuError } from "../engine/gpu/errors.ts";
import { chooseRoute } from "../engine/linalg/cholesky.ts";
import { leastSquaresRoute } from "../engine/linalg/least_squares.ts";
import { measureMatmul } from "../engine/ops/measure.ts";
import { printJson } from "./terminal.ts";

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("Check this machine: adapter, numerics, speed, and what to do")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  deno run -A cli.ts doctor")
    .action(async (flags: { json?: boolean }) => {
      const report = await examine();
      if (flags.json) printJson(report);
      else print(report);
      if (!report.ok) Deno.exitCode = 1;
    });
}

interface Report {
  ok: boolean;
  adapter: string | null;
  features: string[];
  limits: Record<string, number>;
  numerics: Record<string, unknown>;
  routes: Record<string, string>;
  advice: string[];
}

async function examine(): Promise<Report> {
  const empty = { adapter: null, features: [], limits: {}, numerics: {}, routes: {} };
  let gpu: Gpu;
  try {
    gpu = await Gpu.open();
  } catch (error) {
    if (!(error instanceof GpuError)) throw error;
    return { ok: false, ...empty, advice: error.message.split("\n") };
  }
  using opened = gpu;
  const advice: string[] = [];
  if (opened.class === "cpu") {
    advice.push("This is a software driver: small models are fine; larger ones want a GPU");
  }
  if (!opened.numerics.compensated) {
    advice.push("Error-free sums are not exact here: solver residuals run on the host");
  }
  const rate = await measureMatmul(opened, { rows: 128, width: 768 });
  const { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage } = opened.limits;
  return {
    ok: true,
    adapter: opened.description,
    features: [...opened.features],
    limits: { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage },
    numerics: { ...opened.numerics },
    routes: {
      matmul: opened.class === "cpu" && opened.subgroupSize === 8 ? "subgroup" : "tiled",
      solver: chooseRoute(opened, 1024),
      least_squares: leastSquaresRoute(opened, 4096, 1024),
      matmul_gflops: (rate / 1e9).toFixed(1),
    },
    advice,
  };
}

function print(report: Report): void {
  console.log(report.ok ? `ready: ${report.adapter}` : "not ready");
  const line = (name: string, value: unknown) => console.log(`  ${name.padEnd(34)}${value}`);
  if (report.ok) {
    line("features", report.features.join(", ") || "none");
    for (const group of [report.limits, report.numerics, report.routes]) {
      for (const [name, value] of Object.entries(group)) line(name, value);
    }
  }
  for (const advice of report.advice) console.log(`advice: ${advice}`);
}
