// Reads a JSON list of Python programs from the file that it is given; writes a JSON list: does `ast.parse` of Pyodide's Python take it?
// Pyodide (npm install pyodide@0.27.7 is Python 3.12) is looked for from the working directory.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const given = readFileSync(process.argv[2], "utf8");
const found = createRequire(join(process.cwd(), "here.js")).resolve("pyodide");
const { loadPyodide } = await import(pathToFileURL(found.replace(/pyodide\.js$/, "pyodide.mjs")).href);
const pyodide = await loadPyodide();
pyodide.globals.set("given", given);
const verdicts = pyodide.runPython(`
import ast, json, sys, warnings
warnings.simplefilter("ignore")

def parses(text):
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True

json.dumps([list(sys.version_info[:2]), [parses(text) for text in json.loads(given)]])
`);
process.stdout.write(verdicts);
