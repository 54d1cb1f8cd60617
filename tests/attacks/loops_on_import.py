"""Never finishes being imported."""

EXERCISE = "ex01_padding"
AIM = "test_pack"


while True:
    pass
