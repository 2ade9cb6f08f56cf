"""`python -m vergence` is `vergence`: so that torchrun can start several, as `torchrun ... -m vergence train ...`."""

from vergence.cli import main

if __name__ == "__main__":
    main()
