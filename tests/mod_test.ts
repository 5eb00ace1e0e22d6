/** Importing mod.ts from a URL works: no import map, WGSL and JSON arrive over HTTP. */
import assert from "node:assert/strict";

const root = new URL("../", import.meta.url);

Deno.test("mod.ts imports over HTTP with nothing but its address", async () => {
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const path = decodeURIComponent(new URL(request.url).pathname).slice(1);
    try {
      const type = path.endsWith(".ts") ? "application/typescript" : "text/plain";
      return new Response(await Deno.readFile(new URL(path, root)), { headers: { "content-type": type } });
    } catch {
      return new Response("no such file", { status: 404 });
    }
  });
  try {
    const address = `http://127.0.0.1:${server.addr.port}/mod.ts`;
    const code = `import * as emend from "${address}"; console.log(Object.keys(emend).sort().join(" "));`;
    const folder = await Deno.makeTempDir();
    await Deno.writeTextFile(`${folder}/use.ts`, code);
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-config", "--no-lock", "-A", `${folder}/use.ts`],
      cwd: folder,
    });
    const { code: exit, stdout, stderr } = await child.output();
    assert.equal(exit, 0, new TextDecoder().decode(stderr));
    const names = new TextDecoder().decode(stdout).trim().split(" ");
    for (const name of ["load", "edit", "apply", "generate", "METHODS"]) {
      assert.ok(names.includes(name), name);
    }
    await Deno.remove(folder, { recursive: true });
  } finally {
    await server.shutdown();
  }
});
