// The reference scenario of `make bench-sim` in ns-3, to hold the two against each other on one machine in one hour:
// ten clients with eight requests outstanding each, a router in the place of the forwarder, four servers; cables of
// 10 Gb/s with a delay of 10 us; datagrams of 64 bytes, asked and answered. Prints end-to-end packets per second of
// processor time: two for each request that is answered.
//
// Not the same work: ns-3's packets carry no bytes unless somebody writes some, its checksums are off as they are by
// default, and nothing is balanced, translated or judged.

#include <ctime>
#include <iostream>
#include <vector>

#include "ns3/applications-module.h"
#include "ns3/core-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"
#include "ns3/point-to-point-module.h"

using namespace ns3;

namespace {

constexpr uint32_t CLIENTS = 10;
constexpr uint32_t SERVERS = 4;
constexpr uint32_t OUTSTANDING = 8;
constexpr uint32_t PAYLOAD = 64;
constexpr uint16_t PORT = 53;

uint64_t answered = 0;
uint64_t wanted = 200000;

double CpuSeconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

void Answer(Ptr<Socket> socket) {
    Address from;
    while (Ptr<Packet> packet = socket->RecvFrom(from)) {
        socket->SendTo(packet, 0, from);
    }
}

void AskAgain(Ptr<Socket> socket) {
    Address from;
    while (socket->RecvFrom(from)) {
        if (++answered >= wanted) {
            Simulator::Stop();
            return;
        }
        socket->Send(Create<Packet>(PAYLOAD));
    }
}

} // namespace

int main(int argc, char** argv) {
    CommandLine command(__FILE__);
    command.AddValue("requests", "requests that are to be answered", wanted);
    command.Parse(argc, argv);

    NodeContainer hosts;
    NodeContainer router;
    hosts.Create(CLIENTS + SERVERS);
    router.Create(1);
    InternetStackHelper stack;
    stack.Install(hosts);
    stack.Install(router);

    PointToPointHelper cable;
    cable.SetDeviceAttribute("DataRate", StringValue("10Gbps"));
    cable.SetChannelAttribute("Delay", StringValue("10us"));
    Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.0");
    std::vector<Ipv4Address> servers;
    for (uint32_t host = 0; host < CLIENTS + SERVERS; host++) {
        const auto ends = addresses.Assign(cable.Install(hosts.Get(host), router.Get(0)));
        addresses.NewNetwork();
        if (host >= CLIENTS) {
            servers.push_back(ends.GetAddress(0));
        }
    }
    Ipv4GlobalRoutingHelper::PopulateRoutingTables();

    for (uint32_t server = 0; server < SERVERS; server++) {
        auto socket = Socket::CreateSocket(hosts.Get(CLIENTS + server), UdpSocketFactory::GetTypeId());
        socket->Bind(InetSocketAddress(Ipv4Address::GetAny(), PORT));
        socket->SetRecvCallback(MakeCallback(&Answer));
    }
    for (uint32_t flow = 0; flow < CLIENTS * OUTSTANDING; flow++) {
        auto client = hosts.Get(flow / OUTSTANDING);
        auto socket = Socket::CreateSocket(client, UdpSocketFactory::GetTypeId());
        socket->Bind();
        socket->Connect(InetSocketAddress(servers[flow % SERVERS], PORT));
        socket->SetRecvCallback(MakeCallback(&AskAgain));
        Simulator::ScheduleWithContext(client->GetId(), MicroSeconds(flow % OUTSTANDING),
                                       [socket] { socket->Send(Create<Packet>(PAYLOAD)); });
    }

    const double begin = CpuSeconds();
    Simulator::Run();
    const double seconds = CpuSeconds() - begin;
    std::cout << "ns-3: " << 2.0 * static_cast<double>(answered) / seconds << " packets/s\n";
    return 0;
}
