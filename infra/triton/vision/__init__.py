"""What the models compute, without the server that calls them.

Inside tritonserver it is the package `vision` (infra/triton is on the models' PYTHONPATH); for tests and benchmarks it is
`infra.triton.vision`. It runs with numpy 1 and 2. What all share imports numpy and OpenCV only; `codes` needs zxing-cpp as
well, and `serving` alone knows Triton.
"""
