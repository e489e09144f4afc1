# tritonserver's virtual environment, separate because it needs numpy 1. Included by the Makefile, which runs make at the
# repository's root. PYTHON names the interpreter it is made with; it must have a shared library (libpython).
PYTHON ?= python3

.venv-triton/.done: infra/triton/requirements.lock infra/local/triton_environment.py
	$(PYTHON) -m infra.local.triton_environment .venv-triton
	touch $@
