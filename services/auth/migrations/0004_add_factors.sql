-- kind: expand
-- min_compatible_code: 1

-- Number kept free while the slices of issue 3 are built side by side; replaced by what takes it, or taken out.
SELECT 1;
