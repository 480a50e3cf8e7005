// Edges sorted by one of their ends, so that each node can add up its own without asking the others.
#pragma once
#include <vector>

#include "pool.h"

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

  // work(node) for every node, shared by the threads
  template <typename Work>
  void nodes(Work work) const {
    constexpr long piece = 16;
    const long n = static_cast<long>(first_.size()) - 1;
    Pool::instance().run((n + piece - 1) / piece, [&](long p, int) {
      for (long i = p * piece; i < std::min(n, (p + 1) * piece); i++) work(i);
    });
  }

 private:
  std::vector<long> first_;
  std::vector<int> edges_;
};

}  // namespace lamkit
