"""The speed of the engines by themselves: `specbench bench-engine`, without a download."""
