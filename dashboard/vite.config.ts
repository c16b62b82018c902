import { defineConfig } from "vite";

// One script and one style sheet, with their hashes in their names; nothing inline, since the page's policy forbids it.
export default defineConfig({
  base: "./",
  publicDir: false,
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    outDir: "../node/src/admin/ui/dist",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
    rollupOptions: {
      output: {
        inlineDynamicImports: true,
        entryFileNames: "assets/page-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
});
