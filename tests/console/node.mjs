// Runs a function of the page's modules on JSON: node node.mjs MODULE FUNCTION < arguments > result
import { readFileSync } from "node:fs";

const [page, module, name] = process.argv.slice(2);
const found = (await import(`${page}/${module}`))[name];
const calls = JSON.parse(readFileSync(0, "utf8"));
const results = calls.map((args) => {
  try {
    return typeof found === "function" ? found(...args) : found;
  } catch (error) {
    return { error: error.message };
  }
});
const plain = (_, value) => (value instanceof Uint8Array ? [...value] : value);
process.stdout.write(JSON.stringify(results, plain));
