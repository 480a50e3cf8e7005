// Gates, messages and the edge residual of an interaction layer, their reverse, and the reverse of that.
//
// With w_0, w_1 the gates of the receiving and of the sending end, c the cutoff of the edge and u its update:
//   g_k = sigmoid(w_k . e + b_k), a_k = g_k c, M[receiver, :D] += a_0 u, M[sender, D:] += a_1 u, e' = e + u.
#pragma once
#include <vector>

#include "edges.h"
#include "pool.h"
#include "simd.h"

namespace lamkit {

template <typename T>
struct Gates {
  long M, D, N;
  const T *edges, *update, *cutoff, *weight, *bias;  // [M, D], [M, D], [M, 1], [2, D], [2]
  const int *senders, *receivers;
  int end(int k, long m) const { return k == 0 ? receivers[m] : senders[m]; }
};

template <typename T>
class Exchange {
 public:
  static void forward(const Gates<T>& x, T* messages, T* edges) {
    std::vector<T> a(2 * x.M);
    std::fill(messages, messages + 2 * x.N * x.D, T(0));
    Pool& pool = Pool::instance();
    pool.run(pieces(x.M), [&](long piece, int) {
      each(piece, x.M, [&](long m) {
        const T *e = x.edges + m * x.D, *u = x.update + m * x.D;
        T g[2];
        gates(x, m, g);
        a[2 * m] = g[0] * x.cutoff[m];
        a[2 * m + 1] = g[1] * x.cutoff[m];
        for (long j = 0; j < x.D; j++) edges[m * x.D + j] = e[j] + u[j];
      });
    });
    to_nodes(x, 0, x.M, messages, [&](long m, int k, T* row) {
      const T* u = x.update + m * x.D;
      for (long j = 0; j < x.D; j++) row[j] += a[2 * m + k] * u[j];
    });
  }

  // d_messages [N, 2D], d_edges [M, D] -> gradients with respect to edges, update, cutoff, weight, bias (null: not)
  static void reverse(const Gates<T>& x, const T* d_messages, const T* d_edges, T* out_e, T* out_u, T* out_c, T* out_w,
                      T* out_b) {
    std::vector<T> partial(out_w ? pieces(x.M) * (2 * x.D + 2) : 0);
    Pool::instance().run(pieces(x.M), [&](long piece, int) {
      T* sums = out_w ? partial.data() + piece * (2 * x.D + 2) : nullptr;
      each(piece, x.M, [&](long m) {
        const T *e = x.edges + m * x.D, *u = x.update + m * x.D, *d = d_edges + m * x.D;
        const T *q0 = at(x, d_messages, m, 0), *q1 = at(x, d_messages, m, 1);
        T g[2];
        gates(x, m, g);
        const T c = x.cutoff[m], alpha[2] = {dot(u, q0, x.D), dot(u, q1, x.D)};
        out_c[m] = g[0] * alpha[0] + g[1] * alpha[1];
        T p[2];
        for (int k = 0; k < 2; k++) p[k] = alpha[k] * c * g[k] * (T(1) - g[k]);
        const T *w0 = x.weight, *w1 = x.weight + x.D;
        T *oe = out_e + m * x.D, *ou = out_u + m * x.D;
        for (long j = 0; j < x.D; j++) {
          ou[j] = d[j] + c * (g[0] * q0[j] + g[1] * q1[j]);
          oe[j] = d[j] + p[0] * w0[j] + p[1] * w1[j];
        }
        if (!sums) return;
        for (int k = 0; k < 2; k++) {
          for (long j = 0; j < x.D; j++) sums[k * x.D + j] += p[k] * e[j];
          sums[2 * x.D + k] += p[k];
        }
      });
    });
    if (out_w) collect(x, partial, out_w, out_b);
  }

  struct Twice {
    const T *t_e, *t_u, *t_c;        // gradients with respect to what reverse() gave for edges, update, cutoff
    const T *d_messages, *d_edges;   // what reverse() was given
    T *out_messages, *out_edges;     // gradients with respect to those
    T *out_e, *out_u, *out_c, *out_w, *out_b;
  };

  static void twice(const Gates<T>& x, const Twice& g) {
    std::vector<T> partial(pieces(x.M) * (2 * x.D + 2)), a(2 * x.M), mixed(2 * x.M);
    Pool::instance().run(pieces(x.M), [&](long piece, int) {
      T* sums = partial.data() + piece * (2 * x.D + 2);
      each(piece, x.M, [&](long m) { edge(x, g, m, &a[2 * m], &mixed[2 * m], sums); });
    });
    std::fill(g.out_messages, g.out_messages + 2 * x.N * x.D, T(0));
    to_nodes(x, 0, x.M, g.out_messages, [&](long m, int k, T* row) {
      const T *t = g.t_u + m * x.D, *u = x.update + m * x.D;
      for (long j = 0; j < x.D; j++) row[j] += a[2 * m + k] * t[j] + mixed[2 * m + k] * u[j];
    });
    collect(x, partial, g.out_w, g.out_b);
  }

  // sigmoid of both gates of an edge
  static void gates(const Gates<T>& x, long m, T* g) {
    for (int k = 0; k < 2; k++) {
      const T p = dot(x.edges + m * x.D, x.weight + k * x.D, x.D) + x.bias[k];
      g[k] = T(1) / (T(1) + std::exp(-p));
    }
  }

  // Row of messages [N, 2D], or of their gradient, that the edge reads at one of its ends.
  static const T* at(const Gates<T>& x, const T* messages, long m, int k) {
    return messages + x.end(k, m) * 2 * x.D + k * x.D;
  }

  // out [N, 2D]: add(edge, k, half a row) for those of the edges c0 ... c1 that end at each node, in their order
  template <typename Add>
  static void to_nodes(const Gates<T>& x, long c0, long c1, T* out, Add add) {
    for (int k = 0; k < 2; k++) {
      const Order order((k == 0 ? x.receivers : x.senders) + c0, c1 - c0, x.N);
      order.nodes([&](long i) { order.each(i, [&](long m) { add(c0 + m, k, out + i * 2 * x.D + k * x.D); }); });
    }
  }

  static T dot(const T* a, const T* b, long n) {
    return reduce<T>(n, [&](long j) { return a[j] * b[j]; });
  }

 private:
  static constexpr long kPiece = 256;  // edges whose sums are added up before the others'
  static long pieces(long M) { return (M + kPiece - 1) / kPiece; }

  template <typename Work>
  static void each(long piece, long M, Work work) {
    for (long m = piece * kPiece; m < std::min(M, (piece + 1) * kPiece); m++) work(m);
  }

  // One edge of twice(); names as in the formula S = (t_u + t_e) . d + sum_k [g c beta + alpha c g' gamma + t_c g alpha]
  static void edge(const Gates<T>& x, const Twice& t, long m, T* a, T* mixed, T* sums) {
    const long D = x.D, o = m * D;
    const T *e = x.edges + o, *u = x.update + o, *te = t.t_e + o, *tu = t.t_u + o;
    const T c = x.cutoff[m], tc = t.t_c[m];
    T g[2], pi[2], lift[2];
    gates(x, m, g);
    T of_c = 0;
    for (int k = 0; k < 2; k++) {
      const T* q = at(x, t.d_messages, m, k);
      const T alpha = dot(u, q, D), beta = dot(tu, q, D), gamma = dot(te, x.weight + k * D, D);
      const T g1 = g[k] * (T(1) - g[k]), g2 = g1 * (T(1) - 2 * g[k]);
      a[k] = g[k] * c;
      mixed[k] = c * g1 * gamma + tc * g[k];
      pi[k] = c * g1 * beta + alpha * c * g2 * gamma + tc * g1 * alpha;
      lift[k] = alpha * c * g1;
      of_c += g[k] * beta + alpha * g1 * gamma;
    }
    t.out_c[m] = of_c;
    const T *q0 = at(x, t.d_messages, m, 0), *q1 = at(x, t.d_messages, m, 1), *w0 = x.weight, *w1 = x.weight + D;
    for (long j = 0; j < D; j++) {
      t.out_edges[o + j] = tu[j] + te[j];
      t.out_u[o + j] = mixed[0] * q0[j] + mixed[1] * q1[j];
      t.out_e[o + j] = pi[0] * w0[j] + pi[1] * w1[j];
    }
    for (int k = 0; k < 2; k++) {
      for (long j = 0; j < D; j++) sums[k * D + j] += pi[k] * e[j] + lift[k] * te[j];
      sums[2 * D + k] += pi[k];
    }
  }

  static void collect(const Gates<T>& x, const std::vector<T>& partial, T* w, T* b) {
    std::fill(w, w + 2 * x.D, T(0));
    b[0] = b[1] = 0;
    for (long piece = 0; piece < pieces(x.M); piece++) {
      const T* sums = partial.data() + piece * (2 * x.D + 2);
      for (long j = 0; j < 2 * x.D; j++) w[j] += sums[j];
      b[0] += sums[2 * x.D];
      b[1] += sums[2 * x.D + 1];
    }
  }
};

}  // namespace lamkit
