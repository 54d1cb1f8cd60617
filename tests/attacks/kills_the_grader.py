"""Kills its parent."""

import os
import signal

EXERCISE = "ex02_launches"
AIM = "test_one_expert"


os.kill(os.getppid(), signal.SIGKILL)
