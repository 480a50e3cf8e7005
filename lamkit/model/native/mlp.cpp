// Operators of mlp.h as MindSpore calls them: inputs, then outputs, each a flat array.
#include "mlp.h"

#include "call.h"
#include "version.h"

namespace {

using namespace lamkit;

template <typename T>
void weights(Call& call, Net<T>& net, bool with_bias) {
  net.W1 = call.next<T>();
  if (with_bias) net.b1 = call.next<T>();
  net.W2 = call.next<T>();
  if (with_bias) net.b2 = call.next<T>();
  net.W3 = call.next<T>();
  if (with_bias) net.b3 = call.next<T>();
  net.gain = call.next<T>();
  if (with_bias) net.shift = call.next<T>();
}

template <typename T>
void ends(Call& call, Net<T>& net) {
  net.N = call.dim(0);
  net.D = call.dim(1);
  net.nodes = call.next<T>();
  net.senders = call.next<int>();
  net.receivers = call.next<int>();
}

// Widths from the shapes of W1 [H, K + 2 D], which is next, and W3 [O, H], two places (with biases four) on.
template <typename T>
void widths(const Call& call, Net<T>& net, bool with_bias) {
  net.H = call.shapes[call.at][0];
  net.K = call.shapes[call.at][1] - 2 * net.D;
  net.O = call.shapes[call.at + (with_bias ? 4 : 2)][0];
}

// rows, [nodes, senders, receivers], W1, b1, W2, b2, W3, b3, gain, shift -> u, h1, h2, y
template <typename T, typename Act, bool kCentred>
int forward(void** params, int64_t** shapes, bool edges) {
  return guarded([&] {
    Call call{params, shapes};
    Net<T> net;
    net.M = call.dim(0);
    net.rows = call.next<T>();
    if (edges) ends(call, net);
    widths(call, net, true);
    weights<T>(call, net, true);
    T *u = call.next<T>(), *h1 = call.next<T>(), *h2 = call.next<T>();
    Mlp<T, Act, kCentred>::forward(net, u, h1, h2, call.next<T>());
  });
}

// What a reverse sweep leaves: gradients before the activations for the next one, or those of the weights.
enum Mode { kKeep, kTrain };

// kKeep:  du, h1, h2, y, [nodes, senders, receivers], W1, W2, W3, gain -> d_rows, [d_nodes], a1, a2, dy
// kTrain: du, [add1, add2, add_y], h1, h2, y, rows, [nodes, senders, receivers], W1, W2, W3, gain
//         -> d_rows, [d_nodes], W1, b1, W2, b2, W3, b3, gain, shift
template <typename T, typename Act, bool kCentred>
int reverse(void** params, int64_t** shapes, bool edges, Mode mode, bool add) {
  return guarded([&] {
    Call call{params, shapes};
    Net<T> net;
    typename Mlp<T, Act, kCentred>::Reverse g{};
    net.M = call.dim(0);
    g.du = call.next<T>();
    if (add) {
      g.add1 = call.next<T>();
      g.add2 = call.next<T>();
      g.add_y = call.next<T>();
    }
    g.h1 = call.next<T>();
    g.h2 = call.next<T>();
    g.y = call.next<T>();
    if (mode == kTrain) net.rows = call.next<T>();
    if (edges) ends(call, net);
    widths(call, net, false);
    weights<T>(call, net, false);
    g.d_rows = call.next<T>();
    if (edges) g.d_nodes = call.next<T>();
    if (mode == kKeep) {
      g.a1 = call.next<T>();
      g.a2 = call.next<T>();
      g.dy = call.next<T>();
    }
    if (mode == kTrain) {
      g.W1 = call.next<T>();
      g.b1 = call.next<T>();
      g.W2 = call.next<T>();
      g.b2 = call.next<T>();
      g.W3 = call.next<T>();
      g.b3 = call.next<T>();
      g.gain = call.next<T>();
      g.shift = call.next<T>();
    }
    Mlp<T, Act, kCentred>::reverse(net, g);
  });
}

// t_rows, [t_nodes, senders, receivers], du, h1, h2, y, a1, a2, dy, W1, W2, W3, gain
// -> out_du, out_h1, out_h2, out_y, W1, W2, W3, gain
template <typename T, typename Act, bool kCentred>
int twice(void** params, int64_t** shapes, bool edges) {
  return guarded([&] {
    Call call{params, shapes};
    Net<T> net;
    typename Mlp<T, Act, kCentred>::Twice g{};
    net.M = call.dim(0);
    g.t_rows = call.next<T>();
    if (edges) ends(call, net);
    g.t_nodes = net.nodes;
    g.du = call.next<T>();
    g.h1 = call.next<T>();
    g.h2 = call.next<T>();
    g.y = call.next<T>();
    g.a1 = call.next<T>();
    g.a2 = call.next<T>();
    g.dy = call.next<T>();
    widths(call, net, false);
    weights<T>(call, net, false);
    g.out_du = call.next<T>();
    g.out_h1 = call.next<T>();
    g.out_h2 = call.next<T>();
    g.out_y = call.next<T>();
    g.W1 = call.next<T>();
    g.W2 = call.next<T>();
    g.W3 = call.next<T>();
    g.gain = call.next<T>();
    Mlp<T, Act, kCentred>::twice(net, g);
  });
}

}  // namespace

extern "C" {
int edge_forward_keep(LAMKIT_ARGS) { return forward<T, Act, kCentred>(params, shapes, true); }
int row_forward_keep(LAMKIT_ARGS) { return forward<T, Act, kCentred>(params, shapes, false); }
int edge_pull_keep(LAMKIT_ARGS) { return reverse<T, Act, kCentred>(params, shapes, true, kKeep, false); }
int row_pull_keep(LAMKIT_ARGS) { return reverse<T, Act, kCentred>(params, shapes, false, kKeep, false); }
int edge_reverse(LAMKIT_ARGS) { return reverse<T, Act, kCentred>(params, shapes, true, kTrain, false); }
int row_reverse(LAMKIT_ARGS) { return reverse<T, Act, kCentred>(params, shapes, false, kTrain, false); }
int edge_reverse_add(LAMKIT_ARGS) { return reverse<T, Act, kCentred>(params, shapes, true, kTrain, true); }
int row_reverse_add(LAMKIT_ARGS) { return reverse<T, Act, kCentred>(params, shapes, false, kTrain, true); }
int edge_twice(LAMKIT_ARGS) { return twice<T, Act, kCentred>(params, shapes, true); }
int row_twice(LAMKIT_ARGS) { return twice<T, Act, kCentred>(params, shapes, false); }
}
