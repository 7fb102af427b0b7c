// One module, which the server has as /letter.js, and the licenses of what is in it.
export default {
  build: {
    target: "es2022",
    license: { fileName: "licenses.md" },
    modulePreload: false,
    rolldownOptions: {
      input: "src/letter.ts",
      preserveEntrySignatures: "strict",
      output: { entryFileNames: "letter.js" },
    },
  },
};
