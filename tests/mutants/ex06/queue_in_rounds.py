"""All blocks wait for the longest tile of each round."""

MISCONCEPTION = "queue-in-rounds"
CAUGHT_BY = "test_makespan_of_queue"


def makespan_of_queue(costs, order, num_blocks):
    rounds = range(0, len(order), num_blocks)
    return sum(int(costs[order[first : first + num_blocks]].max()) for first in rounds)
