"""What every test shares."""

from hypothesis import settings

# Speed is measured in benchmarks: a machine that others use too is slow now and then, and no test fails for that.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
