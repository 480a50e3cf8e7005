// Edges sorted by one of their ends, so that each node can add up its own without asking the others.
#pragma once
#include <vector>

namespace lamkit {

class Order {
 public:
  // index [M] in 0 ... N-1; edges of one node keep their order, so that sums do not depend on the threads.
  Order(const int* index, long M, long N) : first_(N + 1, 0), edges_(M) {
    for (long m = 0; m < M; m++) first_[index[m] + 1]++;
    for (long i = 0; i < N; i++) first_[i + 1] += first_[i];
    std::vector<long> next(first_.begin(), first_.end() - 1);
    for (long m = 0; m < M; m++) edges_[next[index[m]]++] = static_cast<int>(m);
  }

  // work(edge) for every edge of node i
  template <typename Work>
  void each(long i, Work work) const {
    for (long q = first_[i]; q < first_[i + 1]; q++) work(static_cast<long>(edges_[q]));
  }

 private:
  std::vector<long> first_;
  std::vector<int> edges_;
};

}  // namespace lamkit
