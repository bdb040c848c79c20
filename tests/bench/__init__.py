"""Side-by-side benchmarks: ratios from interleaved runs on one machine."""
