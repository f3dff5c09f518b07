"""Run `python -m benchmarks.gpu`; the commands are listed in `benchmarks/gpu/measure.py`."""

from benchmarks.gpu.measure import main

if __name__ == "__main__":
    main()
