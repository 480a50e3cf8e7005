// Prediction: a network, and a whole interaction layer up to its node network, from weights that were put in order
// once. The pull (gradient with respect to the input) makes again what the forward sweep did not keep, block by
// block in the cache, with the same operations in the same order: results do not depend on what was kept.
//
// Only the first `live` rows are real; what is beyond is padding and comes out as zero.
#pragma once
#include "exchange.h"
#include "layers.h"

namespace lamkit {

// A network's weights as one array: sizes, then what both sweeps add and scale by, then factors of one sweep.
template <typename T>
struct Weights {
  static constexpr long kHead = 16;

  static long vectors(const Net<T>& net) { return 2 * net.H + 3 * net.O; }
  static long size(const Net<T>& net, bool ahead) {
    return kHead + vectors(net) + (ahead ? Ahead<T>::size(net) : Backward<T>::size(net));
  }

  static void write(const Net<T>& net, T* at, bool ahead) {
    const long sizes[4] = {net.K, net.D, net.H, net.O};
    std::fill(at, at + kHead, T(0));
    for (int i = 0; i < 4; i++) at[i] = static_cast<T>(sizes[i]);
    T* next = at + kHead;
    auto put = [&](const T* from, long n) { next = std::copy(from, from + n, next); };
    put(net.b1, net.H), put(net.b2, net.H), put(net.b3, net.O), put(net.gain, net.O), put(net.shift, net.O);
    if (ahead) Ahead<T>::fill(net, next);
    else Backward<T>::fill(net, next);
  }

  // Fills in sizes and vectors; returns where the factors are.
  static const T* read(const T* at, Net<T>& net) {
    net.K = static_cast<long>(at[0]);
    net.D = static_cast<long>(at[1]);
    net.H = static_cast<long>(at[2]);
    net.O = static_cast<long>(at[3]);
    at += kHead;
    net.b1 = at;
    net.b2 = net.b1 + net.H;
    net.b3 = net.b2 + net.H;
    net.gain = net.b3 + net.O;
    net.shift = net.gain + net.O;
    return net.shift + net.O;
  }
};

// What the forward sweep keeps: nothing, the second hidden layer and y, or the first one, too.
template <typename T>
struct Kept {
  T *h1 = nullptr, *h2 = nullptr, *y = nullptr;
};

template <typename T, typename Act, bool kCentred>
class Predict : Layers<T, Act, kCentred> {
  using L = Layers<T, Act, kCentred>;
  using typename L::N_;
  using typename L::Widths;
  using L::at_nodes, L::first, L::hidden, L::in_blocks, L::nodes_from_sums, L::segment, L::through;

  // Edges whose contributions to nodes are added up at a time: few enough to stay in the cache until then, enough
  // for each thread to have some blocks of them.
  static long chunk_of(long live) { return std::min(live, std::max(2048L, 1024L * Pool::instance().threads())); }

 public:
  static void rows(const Net<T>& net, const T* factors, long live, T* u, const Kept<T>& kept) {
    const Ahead<T> ahead(net, factors);
    const Widths w(net, live);
    in_blocks(live, w, [&](long m0, long m1, T* x, T* a, T* b) {
      forward(net, w, ahead, nullptr, nullptr, m0, m1 - m0, x, a, b, kept);
      for (long i = 0; i < m1 - m0; i++)
        N_::value(x + i * w.small, net.gain, net.shift, u + (m0 + i) * net.O, a, net.O);
    });
    std::fill(u + live * net.O, u + net.M * net.O, T(0));
  }

  static void rows_pull(const Net<T>& net, const T* ahead_at, const T* back_at, long live, const T* du, Kept<T> kept,
                        T* out) {
    const Backward<T> back(net, back_at);
    const Widths w(net, live, !kept.h1);
    in_blocks(live, w, [&](long m0, long m1, T* x, T* a, T* b) {
      const Kept<T> here = again(net, w, ahead_at, nullptr, nullptr, m0, m1 - m0, x, a, b, kept);
      for (long i = 0; i < m1 - m0; i++)
        N_::reverse(here.y + i * net.O, net.gain, du + (m0 + i) * net.O, x + i * w.small, a, net.O);
      down(net, w, back, m1 - m0, x, a, b, here, static_cast<T*>(nullptr));
      for (long i = 0; i < m1 - m0; i++) std::memcpy(out + (m0 + i) * net.K, x + i * w.small, net.K * sizeof(T));
    });
    std::fill(out + live * net.K, out + net.M * net.K, T(0));
  }

  // Edges e and nodes -> messages [N, 2 D] and e + u (see exchange.h), with u the network of [e, n_i, n_j].
  static void layer(const Net<T>& net, const T* factors, const Gates<T>& gates, long live, T* messages, T* edges,
                    const Kept<T>& kept) {
    const Ahead<T> ahead(net, factors);
    const T* sent = at_nodes(net, net.nodes, ahead.at_sender, net.b1, kSent);
    const T* received = at_nodes(net, net.nodes, ahead.at_receiver, nullptr, kReceived);
    const long O = net.O, chunk = chunk_of(live);
    T *u = Arena::instance().get<T>(kY, chunk * O), *weights = Arena::instance().get<T>(kGates, 2 * chunk);
    std::fill(messages, messages + 2 * net.N * O, T(0));
    std::fill(edges + live * O, edges + net.M * O, T(0));
    const Widths w(net, chunk);
    for (long c0 = 0; c0 < live; c0 += chunk) {
      const long c1 = std::min(live, c0 + chunk);
      in_blocks(c1 - c0, w, [&](long from, long to, T* x, T* a, T* b) {
        const long m0 = c0 + from;
        forward(net, w, ahead, sent, received, m0, to - from, x, a, b, kept);
        for (long i = 0; i < to - from; i++) {
          const long m = m0 + i;
          T* row = u + (m - c0) * O;
          N_::value(x + i * w.small, net.gain, net.shift, row, a, O);
          T g[2];
          Exchange<T>::gates(gates, m, g);
          for (int k = 0; k < 2; k++) weights[2 * (m - c0) + k] = g[k] * gates.cutoff[m];
          for (long j = 0; j < O; j++) edges[m * O + j] = gates.edges[m * O + j] + row[j];
        }
      });
      Exchange<T>::to_nodes(gates, c0, c1, messages, [&](long m, int k, T* row) {
        const T *from = u + (m - c0) * O, a = weights[2 * (m - c0) + k];
        for (long j = 0; j < O; j++) row[j] += a * from[j];
      });
    }
  }

  struct Pull {
    const T *d_messages, *d_edges;  // d_edges null: zero, as behind the last layer
    Kept<T> kept;
    T *out_edges, *out_cutoff, *out_nodes;
  };

  // Gradients of layer() with respect to edges, cutoff and nodes.
  static void layer_pull(const Net<T>& net, const T* ahead_at, const T* back_at, const Gates<T>& gates, long live,
                         const Pull& g) {
    Arena& arena = Arena::instance();
    const Backward<T> back(net, back_at);
    const T *sent_in = nullptr, *received_in = nullptr;
    if (!g.kept.h1) {
      const Ahead<T> ahead(net, ahead_at);
      sent_in = at_nodes(net, net.nodes, ahead.at_sender, net.b1, kSentIn);
      received_in = at_nodes(net, net.nodes, ahead.at_receiver, nullptr, kReceivedIn);
    }
    const long chunk = chunk_of(live);
    T* k1 = arena.get<T>(kK1, chunk * net.H);
    T *sent = arena.get<T>(kSent, net.N * net.H), *received = arena.get<T>(kReceived, net.N * net.H);
    for (T* sums : {sent, received}) std::fill(sums, sums + net.N * net.H, T(0));
    const Widths w(net, chunk, !g.kept.h1);
    for (long c0 = 0; c0 < live; c0 += chunk) {
      const long c1 = std::min(live, c0 + chunk);
      in_blocks(c1 - c0, w, [&](long from, long to, T* x, T* a, T* b) {
        const long m0 = c0 + from, rows = to - from;
        const Kept<T> here = again(net, w, ahead_at, sent_in, received_in, m0, rows, x, a, b, g.kept);
        for (long i = 0; i < rows; i++) gated(net, gates, g, m0 + i, here.y + i * net.O, x + i * w.small, a);
        down(net, w, back, rows, x, a, b, here, k1 + from * net.H);
        for (long i = 0; i < rows; i++) {
          T* out = g.out_edges + (m0 + i) * net.K;
          for (long j = 0; j < net.K; j++) out[j] += x[i * w.small + j];
        }
      });
      segment(net, net.senders, c0, c1, k1, sent);
      segment(net, net.receivers, c0, c1, k1, received);
    }
    std::fill(g.out_edges + live * net.K, g.out_edges + net.M * net.K, T(0));
    std::fill(g.out_cutoff + live, g.out_cutoff + net.M, T(0));
    nodes_from_sums(net, back, sent, received, g.out_nodes);
  }

 private:
  // Rows m0 ... up to y, which is left in x, and kept.
  static void forward(const Net<T>& net, const Widths& w, const Ahead<T>& ahead, const T* sent, const T* received,
                      long m0, long rows, T* x, T* a, T* b, const Kept<T>& kept) {
    hidden(net, w, ahead, sent, received, m0, rows, x, a, b, kept.h1 ? kept.h1 + m0 * net.H : nullptr,
           kept.h2 ? kept.h2 + m0 * net.H : nullptr);
    if (kept.y)
      for (long i = 0; i < rows; i++) std::memcpy(kept.y + (m0 + i) * net.O, x + i * w.small, net.O * sizeof(T));
  }

  // h1, h2 and y of the rows m0 ..., from memory or made again in the blocks behind b.
  static Kept<T> again(const Net<T>& net, const Widths& w, const T* ahead_at, const T* sent, const T* received, long m0,
                       long rows, T* x, T* a, T* b, const Kept<T>& kept) {
    if (kept.h1) return {kept.h1 + m0 * net.H, kept.h2 + m0 * net.H, kept.y + m0 * net.O};
    const Ahead<T> ahead(net, ahead_at);
    const long block = w.rows * std::max(w.big, w.small);
    T *p = b + block, *q = p + block, *r = q + block;
    if (kept.h2) {
      first(net, w, ahead, sent, received, m0, rows, x, a);
      for (long i = 0; i < rows; i++) std::memcpy(p + i * net.H, a + i * w.big, net.H * sizeof(T));
      return {p, kept.h2 + m0 * net.H, kept.y + m0 * net.O};
    }
    hidden(net, w, ahead, sent, received, m0, rows, x, a, b, p, q);
    for (long i = 0; i < rows; i++) std::memcpy(r + i * net.O, x + i * w.small, net.O * sizeof(T));
    return {p, q, r};
  }

  // From dy in x to the gradient of the rows' own part, in x; before the first activation it is written to k1.
  static void down(const Net<T>& net, const Widths& w, const Backward<T>& back, long rows, T* x, T* a, T* b,
                   const Kept<T>& here, T* k1) {
    T* no = nullptr;
    block_product(x, w.small, rows, back.w3, b, w.big);
    through(net, b, w.big, 0, rows, here.h2, no, no, no);
    block_product(b, w.big, rows, back.w2, a, w.big);
    through(net, a, w.big, 0, rows, here.h1, no, no, k1);
    block_product(a, w.big, rows, back.w1, x, w.small);
  }

  // One edge back through messages, gates, residual and norm: dy, and what does not go through the network.
  static void gated(const Net<T>& net, const Gates<T>& gates, const Pull& g, long m, const T* y, T* dy, T* scratch) {
    const long O = net.O;
    T *u = scratch, *du = u + O, *unit = du + O;
    N_::value(y, net.gain, net.shift, u, unit, O);
    const T *q0 = Exchange<T>::at(gates, g.d_messages, m, 0), *q1 = Exchange<T>::at(gates, g.d_messages, m, 1);
    const T *w0 = gates.weight, *w1 = w0 + O, c = gates.cutoff[m];
    T s[2];
    Exchange<T>::gates(gates, m, s);
    const T alpha[2] = {Exchange<T>::dot(u, q0, O), Exchange<T>::dot(u, q1, O)};
    g.out_cutoff[m] = s[0] * alpha[0] + s[1] * alpha[1];
    T p[2];
    for (int k = 0; k < 2; k++) p[k] = alpha[k] * c * s[k] * (T(1) - s[k]);
    T* out = g.out_edges + m * O;
    for (long j = 0; j < O; j++) {
      du[j] = c * (s[0] * q0[j] + s[1] * q1[j]);
      out[j] = p[0] * w0[j] + p[1] * w1[j];
    }
    if (g.d_edges) {
      const T* d = g.d_edges + m * O;
      for (long j = 0; j < O; j++) {
        du[j] += d[j];
        out[j] += d[j];
      }
    }
    N_::reverse(y, net.gain, du, dy, unit, O);
  }
};

}  // namespace lamkit
